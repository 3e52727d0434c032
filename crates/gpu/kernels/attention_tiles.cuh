// Attention on Tensor Cores: tiles of 64 rows of a head in shared memory, and what warps load from
// them. HALF is the type of operands, WIDTH the elements of a head, rounded up to a multiple of 16;
// rows beyond the end and elements beyond the head are zeros.
#pragma once
#include "asynchronous.cuh"
#include "attention.cuh"
#include "math.cuh"
#include "tensor.cuh"

#define SIDE 64
#define THREADS 128
#define CHUNKS (WIDTH / 8)

struct alignas(128) Tile {
    u16 of[SIDE * WIDTH];
};

// Where a chunk of 8 elements lies. Chunks of a row change places with the row, so that the 8 rows
// of a matrix, and neighbours in a row, lie in different banks.
__device__ inline u32 place(u32 row, u32 chunk) {
    const u32 turn = CHUNKS % 8 == 0 ? row % 8 : CHUNKS % 4 == 0 ? row / 2 % 4 : row / 4 % 2;
    return row * WIDTH + (chunk ^ turn) * 8;
}

// Asks for 64 rows, from `row` on.
__device__ inline void fetch(Tile& tile, const Rows<const HALF>& rows, u32 row, const Heads& s) {
#pragma unroll
    for (u32 j = 0; j < SIDE * CHUNKS / THREADS; ++j) {
        u32 id = threadIdx.x + j * THREADS, r = id / CHUNKS, chunk = id % CHUNKS;
        bool there = row + r < s.time && chunk * 8 < s.dim;
        const HALF* from = rows.first + (there ? rows.offset(row + r, chunk * 8) : 0);
        copy_async<16>(shared_address(&tile.of[place(r, chunk)]), from, there ? 16 : 0);
    }
}

// 16 rows of the tile by 16 elements, as the left operand: rows are rows of the result.
__device__ inline void load_own(u32* r, const Tile& tile, u32 row, u32 element) {
    u32 lane = threadIdx.x % 32;
    load_matrices(r, shared_address(&tile.of[place(row + lane % 16, element / 8 + lane / 16)]));
}

// 16 rows by 16 elements, as right operands: rows are columns of the result.
__device__ inline void load_columns(u32* r, const Tile& tile, u32 row, u32 element) {
    u32 lane = threadIdx.x % 32;
    u32 down = lane % 8 + lane / 16 * 8;
    load_matrices(r, shared_address(&tile.of[place(row + down, element / 8 + lane / 8 % 2)]));
}

// 16 rows by 16 elements, as right operands: elements are columns of the result.
__device__ inline void load_elements(u32* r, const Tile& tile, u32 row, u32 element) {
    u32 lane = threadIdx.x % 32;
    load_turned(r, shared_address(&tile.of[place(row + lane % 16, element / 8 + lane / 16)]));
}

// The last key that a query sees, counted from the lane's first column of the keys from `keys` on.
__device__ inline int last_seen(const Heads& s, u32 query, u32 keys) {
    u32 last = s.causal && query < s.time ? query : s.time - 1;
    return (int)last - (int)(keys + threadIdx.x % 4 * 2);
}

// 2^x within 2 ulp, below 2^-126 zero: what is made of it is rounded to 16 bits, or a sum of
// positive numbers.
__device__ inline float power(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Two numbers, rounded.
__device__ inline u32 packed(float low, float high) {
    u32 two;
    asm("cvt.rn." TEXT_OF(HALF) "x2.f32 %0, %1, %2;" : "=r"(two) : "f"(high), "f"(low));
    return two;
}

// Results of 16 rows by 16 columns, rounded, as the left operand of another product.
__device__ inline void pack(u32* left, const float (*two)[4]) {
    left[0] = packed(two[0][0], two[0][1]);
    left[1] = packed(two[0][2], two[0][3]);
    left[2] = packed(two[1][0], two[1][1]);
    left[3] = packed(two[1][2], two[1][3]);
}

// Adds the product of 16 by 16 and 16 rows of a tile to sums for the whole width.
__device__ inline void add_rows(float (*sums)[4], const u32* left, const Tile& tile, u32 row) {
#pragma unroll
    for (u32 d = 0; d < WIDTH; d += 16) {
        u32 right[4];
        load_elements(right, tile, row, d);
        multiply(sums[d / 8], left, right);
        multiply(sums[d / 8 + 1], left, right + 2);
    }
}

// Stores the 16 rows of a warp, times a factor for each half of 8, by way of the warp's rows of a
// tile, so that a store is of 8 neighbours.
__device__ inline void store(
    const Rows<HALF>& rows, u32 first, const float (*sums)[4], const float* factors, Tile& tile,
    const Heads& s
) {
    u32 lane = threadIdx.x % 32, own = threadIdx.x / 32 * 16;
#pragma unroll
    for (u32 j = 0; j < CHUNKS; ++j)
#pragma unroll
        for (u32 h = 0; h < 2; ++h) {
            float low = sums[j][h * 2] * factors[h], high = sums[j][h * 2 + 1] * factors[h];
            u32 at = place(own + h * 8 + lane / 4, j) + lane % 4 * 2;
            *(u32*)&tile.of[at] = packed(low, high);
        }
    __syncwarp();
#pragma unroll
    for (u32 j = 0; j < 16 * CHUNKS / 32; ++j) {
        u32 id = lane + j * 32, r = own + id / CHUNKS, chunk = id % CHUNKS;
        if (first + r < s.time && chunk * 8 < s.dim)
            *(uint4*)rows.at(first + r, chunk * 8) = *(const uint4*)&tile.of[place(r, chunk)];
    }
}
