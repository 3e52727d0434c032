// A product on Tensor Cores of two operands that say themselves where their elements lie: operands
// of 16 bits or codes that those hold, or f32 as PLANES terms of bf16 each. Products are exact and
// added in f32, 16 of k at a time, in ascending order.
#pragma once
#include "after.cuh"
#include "tensor.cuh"

#define DEPTH 32
// Rows of threads' warps: two, each with half of the tile's rows and 32 of its columns.
#define WARPS (TILE / 16)
#define THREADS (32 * WARPS)

// A chunk of 8 neighbours, of each term.
struct alignas(16) Chunk {
    u16 of[8];
};
struct Chunks {
    Chunk terms[PLANES];
};

// The terms of a number: each is what the terms before it left, to nearest even.
template <class T>
__device__ inline void put_terms(Chunks& c, u32 at, T value) {
    float x = widened(value);
#pragma unroll
    for (u32 t = 0; t < PLANES; ++t) {
        HALF term = rounded<HALF>(x);
        c.terms[t].of[at] = term.code;
        float kept = widened(term);
        x = is_finite(kept) ? x - kept : 0.0f;
    }
}

// What is multiplied as it is.
__device__ inline void put_terms(Chunks& c, u32 at, HALF value) { c.terms[0].of[at] = value.code; }

template <class T>
__device__ inline void put_several_terms(Chunks& c, const T* p) {
    auto several = *(const Several<T, 8>*)p;
#pragma unroll
    for (u32 e = 0; e < 8; ++e) put_terms(c, e, several.of[e]);
}

// 8 neighbours from (i, k) on: zeros beyond the operand.
template <class Operand>
__device__ inline Chunks fetch(const Operand& operand, u32 i, u32 k, u32 count, u32 depth) {
    Chunks c = {};
    const u32 di = Operand::ALONG ? 0 : 1, dk = Operand::ALONG ? 1 : 0;
    if (operand.together() && i + 7 * di < count && k + 7 * dk < depth) {
        auto p = operand.find(i, k);
        if (p == nullptr) return c;
        if ((u64)p % (8 * sizeof(*p)) == 0) {
            put_several_terms(c, p);
            return c;
        }
    }
#pragma unroll
    for (u32 e = 0; e < 8; ++e) {
        if (i + e * di >= count || k + e * dk >= depth) continue;
        auto p = operand.find(i + e * di, k + e * dk);
        if (p != nullptr) put_terms(c, e, *p);
    }
    return c;
}

// Where a chunk of a tile lies: rows of 32 along k, or of TILE across it; chunks of a row change
// places with the row, so that neither loads nor stores meet in a bank.
template <bool ALONG>
__device__ inline u32 place(u32 row, u32 chunk) {
    return ALONG ? row * DEPTH + ((chunk ^ (row / 2 % 4)) * 8)
                 : row * TILE + ((chunk ^ (row % 8)) * 8);
}

// The parts of a tile that a thread fetches and stores.
template <class Operand>
struct Part {
    static const u32 EACH = TILE * DEPTH / 8 / (WARPS * 32);
    static const u32 ROW = Operand::ALONG ? DEPTH / 8 : TILE / 8;
    Chunks chunks[EACH];

    __device__ void get(const Operand& operand, u32 first, u32 k, u32 count, u32 depth) {
#pragma unroll
        for (u32 j = 0; j < EACH; ++j) {
            u32 id = threadIdx.x + j * WARPS * 32, row = id / ROW, chunk = id % ROW;
            chunks[j] = Operand::ALONG ? fetch(operand, first + row, k + chunk * 8, count, depth)
                                       : fetch(operand, first + chunk * 8, k + row, count, depth);
        }
    }

    __device__ void put(u16 (*tile)[TILE * DEPTH]) const {
#pragma unroll
        for (u32 j = 0; j < EACH; ++j) {
            u32 id = threadIdx.x + j * WARPS * 32, row = id / ROW, chunk = id % ROW;
#pragma unroll
            for (u32 t = 0; t < PLANES; ++t)
                *(Chunk*)&tile[t][place<Operand::ALONG>(row, chunk)] = chunks[j].terms[t];
        }
    }
};

// 16 rows by 16 of k.
template <bool ALONG>
__device__ inline void load_left(u32* r, const u16* tile, u32 row, u32 k) {
    u32 lane = threadIdx.x % 32;
    if (ALONG)
        load_matrices(r, tile + place<true>(row + lane % 16, k / 8 + lane / 16));
    else
        load_turned(r, tile + place<false>(k + lane % 8 + lane / 16 * 8, row / 8 + lane / 8 % 2));
}

// 16 columns by 16 of k.
template <bool ALONG>
__device__ inline void load_right(u32* r, const u16* tile, u32 column, u32 k) {
    u32 lane = threadIdx.x % 32;
    if (ALONG)
        load_matrices(
            r, tile + place<true>(column + lane % 8 + lane / 16 * 8, k / 8 + lane / 8 % 2)
        );
    else
        load_turned(
            r, tile + place<false>(k + lane % 8 + lane / 8 % 2 * 8, column / 8 + lane / 16)
        );
}

struct Tiles {
    u16 left[PLANES][TILE * DEPTH], right[PLANES][TILE * DEPTH];
};

// Adds the products of terms that matter, smallest first.
template <bool A, bool B>
__device__ inline void multiply_tiles(
    float (*sums)[4][4], const Tiles& tiles, u32 row, u32 column
) {
#pragma unroll
    for (u32 k = 0; k < DEPTH; k += 16)
#pragma unroll
        for (int order = PLANES - 1; order >= 0; --order)
#pragma unroll
            for (int t = order; t >= 0; --t) {
                u32 right[2][4];
#pragma unroll
                for (u32 j = 0; j < 2; ++j)
                    load_right<B>(right[j], tiles.right[order - t], column + j * 16, k);
#pragma unroll
                for (u32 i = 0; i < TILE / 32; ++i) {
                    u32 left[4];
                    load_left<A>(left, tiles.left[t], row + i * 16, k);
#pragma unroll
                    for (u32 j = 0; j < 4; ++j)
                        multiply(sums[i][j], left, &right[j / 2][j % 2 * 2]);
                }
            }
}

// Over k from `begin` on.
template <class A, class B, class Store>
__device__ inline void product(
    u32 m, u32 n, u32 begin, u32 k, const A& a, const B& b, Store store
) {
    // What is multiplied, and what is fetched for the next turn; at the end the results.
    __shared__ alignas(128) Tiles tiles[2];
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u32 row = blockIdx.x * TILE, column = blockIdx.y * TILE;
    u32 down = warp % 2 * (TILE / 2), across = warp / 2 * 32;
    float sums[TILE / 32][4][4] = {};
    Part<A> left;
    Part<B> right;
    left.get(a, row, begin, m, k);
    right.get(b, column, begin, n, k);
    for (u32 first = begin, turn = 0; first < k; first += DEPTH, turn ^= 1) {
        left.put(tiles[turn].left);
        right.put(tiles[turn].right);
        __syncthreads();
        if (first + DEPTH < k) {
            left.get(a, row, first + DEPTH, m, k);
            right.get(b, column, first + DEPTH, n, k);
        }
        multiply_tiles<A::ALONG, B::ALONG>(sums, tiles[turn], down, across);
    }
    // 32 rows at a time, so that neighbouring threads have neighbouring results.
    float (*results)[TILE + 8] = (float (*)[TILE + 8]) tiles;
#pragma unroll
    for (u32 part = 0; part < TILE; part += 32) {
        __syncthreads();
        if (down == part / (TILE / 2) * (TILE / 2)) {
#pragma unroll
            for (u32 h = 0; h < 4; ++h)
#pragma unroll
                for (u32 j = 0; j < 4; ++j) {
                    u32 i = part % (TILE / 2) / 16 + h / 2, r = h / 2 * 16 + h % 2 * 8 + lane / 4;
                    float2 two = make_float2(sums[i][j][h % 2 * 2], sums[i][j][h % 2 * 2 + 1]);
                    *(float2*)&results[r][across + j * 8 + lane % 4 * 2] = two;
                }
        }
        __syncthreads();
        for (u32 e = threadIdx.x; e < 32 * TILE; e += WARPS * 32) {
            u32 r = row + part + e / TILE, c = column + e % TILE;
            if (r < m && c < n) store(r, c, results[e / TILE][e % TILE]);
        }
    }
}
