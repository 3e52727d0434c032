// Attention in f32, for all types and sizes that Tensor Cores do not take: squares of 64 by 64
// numbers in shared memory, and their products. A block has 256 threads, 16 by 16, of which each
// has 4 by 4 of a square's results: rows down + 16 i, columns across + 16 j of scores, and columns
// 4 across + e of sums. Heads wider than a square are taken 64 elements at a time.
#pragma once
#include "attention.cuh"
#include "math.cuh"

#define SIDE 64
#define THREADS 256

// Chunks of 4 numbers of a row change places with the row, so that loads of a column of chunks and
// stores of two rows lie in different banks.
struct alignas(16) Square {
    float of[SIDE * SIDE];

    __device__ static u32 place(u32 row, u32 chunk) {
        return row * SIDE + (chunk ^ (row % 2 * 4 + row / 2 % 4)) * 4;
    }
    // Of the row 16 i below, which has the same order of chunks.
    __device__ float4 chunk(u32 row, u32 chunk, u32 i = 0) const {
        return *(const float4*)&of[place(row, chunk) + i * 16 * SIDE];
    }

    // 64 rows by 64 elements, from (row, element) on: zeros beyond the head.
    template <class T>
    __device__ void load(const Rows<const T>& rows, u32 row, u32 element, const Heads& s) {
        bool together = s.dim % 4 == 0;
#pragma unroll
        for (u32 j = 0; j < SIDE * SIDE / 4 / THREADS; ++j) {
            u32 id = threadIdx.x + j * THREADS, r = id / (SIDE / 4), c = id % (SIDE / 4);
            u32 t = row + r, d = element + c * 4;
            float x[4] = {};
            if (t < s.time && together && d < s.dim) {
                get_several<4>(rows.at(t, d), 0, x);
            } else if (t < s.time && !together) {
#pragma unroll
                for (u32 e = 0; e < 4; ++e)
                    if (d + e < s.dim) x[e] = widened(*rows.at(t, d + e));
            }
            *(float4*)&of[place(r, c)] = make_float4(x[0], x[1], x[2], x[3]);
        }
    }

    // Scores as this thread has them.
    __device__ void put(const float (*scores)[4]) {
        u32 across = threadIdx.x % 16, down = threadIdx.x / 16;
#pragma unroll
        for (u32 i = 0; i < 4; ++i)
#pragma unroll
            for (u32 j = 0; j < 4; ++j) {
                u32 column = across + j * 16;
                of[place(down + i * 16, column / 4) + column % 4] = scores[i][j];
            }
    }
};

// The products of each of 64 rows of one head with each of 64 of another, from `down` and
// `across` on.
template <class A, class B>
__device__ inline void multiply_rows(
    float (*scores)[4], Square* squares, const Rows<const A>& a, u32 down, const Rows<const B>& b,
    u32 across, const Heads& s
) {
    u32 column = threadIdx.x % 16, row = threadIdx.x / 16;
#pragma unroll
    for (u32 i = 0; i < 4; ++i)
#pragma unroll
        for (u32 j = 0; j < 4; ++j) scores[i][j] = 0.0f;
    for (u32 d = 0; d < s.dim; d += SIDE) {
        // What was there has been read.
        __syncthreads();
        squares[0].load(a, down, d, s);
        squares[1].load(b, across, d, s);
        __syncthreads();
        u32 chunks = s.dim - d < SIDE ? (s.dim - d + 3) / 4 : SIDE / 4;
#pragma unroll 1
        for (u32 c = 0; c < chunks; ++c) {
            float4 left[4], right[4];
#pragma unroll
            for (u32 i = 0; i < 4; ++i) left[i] = squares[0].chunk(row, c, i);
#pragma unroll
            for (u32 j = 0; j < 4; ++j) right[j] = squares[1].chunk(column, c, j);
#pragma unroll
            for (u32 i = 0; i < 4; ++i)
#pragma unroll
                for (u32 j = 0; j < 4; ++j) {
                    scores[i][j] = fmaf(left[i].x, right[j].x, scores[i][j]);
                    scores[i][j] = fmaf(left[i].y, right[j].y, scores[i][j]);
                    scores[i][j] = fmaf(left[i].z, right[j].z, scores[i][j]);
                    scores[i][j] = fmaf(left[i].w, right[j].w, scores[i][j]);
                }
        }
    }
}

// Adds to sums weights times 64 rows of a head, from `row` on, of 64 elements from `element` on.
template <class T>
__device__ inline void add_rows(
    float (*sums)[4], const float (*weights)[4], Square* squares, const Rows<const T>& rows,
    u32 row, u32 element, const Heads& s
) {
    u32 across = threadIdx.x % 16, down = threadIdx.x / 16;
    __syncthreads();
    squares[2].put(weights);
    squares[1].load(rows, row, element, s);
    __syncthreads();
#pragma unroll 1
    for (u32 c = 0; c < SIDE / 4; ++c) {
        float4 left[4];
#pragma unroll
        for (u32 i = 0; i < 4; ++i) left[i] = squares[2].chunk(down, c, i);
#pragma unroll
        for (u32 k = 0; k < 4; ++k) {
            float4 right = squares[1].chunk(c * 4 + k, across);
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                float weight = k == 0   ? left[i].x
                               : k == 1 ? left[i].y
                               : k == 2 ? left[i].z
                                        : left[i].w;
                sums[i][0] = fmaf(weight, right.x, sums[i][0]);
                sums[i][1] = fmaf(weight, right.y, sums[i][1]);
                sums[i][2] = fmaf(weight, right.z, sums[i][2]);
                sums[i][3] = fmaf(weight, right.w, sums[i][3]);
            }
        }
    }
}

// Stores sums, times a factor for each row.
template <class T>
__device__ inline void store(
    const Rows<T>& rows, u32 row, u32 element, const float (*sums)[4], const float* factors,
    const Heads& s
) {
    u32 across = threadIdx.x % 16, down = threadIdx.x / 16, d = element + across * 4;
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
        u32 t = row + down + i * 16;
        if (t >= s.time) continue;
        float x[4];
#pragma unroll
        for (u32 e = 0; e < 4; ++e) x[e] = sums[i][e] * factors[i];
        if (s.dim % 4 == 0) {
            if (d < s.dim) put_computed<4>(rows.at(t, d), 0, x);
        } else {
#pragma unroll
            for (u32 e = 0; e < 4; ++e)
                if (d + e < s.dim) *rows.at(t, d + e) = rounded<T>(x[e]);
        }
    }
}
