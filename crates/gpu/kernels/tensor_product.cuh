// A product on Tensor Cores of two operands that say themselves where their elements lie: operands
// of 16 bits or codes that those hold, or f32 as PLANES terms of bf16 each. Products are exact and
// added in f32, 16 of k at a time, in ascending order.
//
// Tiles of TILE_M by TILE_N, DEPTH of k at a time in one of STAGES pieces of shared memory. Chunks
// of operands that are multiplied as they are stored are copied there without passing through
// registers, several stages ahead; others are converted on the way.
#pragma once
#include "asynchronous.cuh"
#include "tensor.cuh"

// Elements of k of a product of Tensor Cores.
#define PRODUCT_DEPTH 16

// A chunk of neighbours, of each term.
struct alignas(16) Chunk {
    u16 of[CHUNK];
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

// Where the element at `column`, a multiple of CHUNK, of a row of LENGTH elements lies: chunks
// change places with the row, so that neither loads nor stores meet in a bank.
template <u32 LENGTH>
__device__ inline u32 place(u32 row, u32 column) {
    u32 turn = LENGTH == 32 ? row / 2 % 4 : row % 8;
    return row * LENGTH + (column ^ turn * CHUNK);
}

template <class A, class B>
struct Same {
    static const bool VALUE = false;
};
template <class A>
struct Same<A, A> {
    static const bool VALUE = true;
};

// Brings the tiles of an operand, of each term one.
template <class Operand, bool WHOLE, u32 SIZE>
struct Bringer {
    typedef Part<Operand, WHOLE, SIZE> Chosen;
    static const bool COPIED = WHOLE && PLANES == 1 && Same<typename Operand::Element, HALF>::VALUE;
    static const u32 LENGTH = Operand::ALONG ? DEPTH : SIZE;
    Chosen part;
    Chunks chunks[COPIED ? 1 : Chosen::EACH];

    __device__ Bringer(const Operand& operand, u32 first, u32 count) : part(operand, first, count) {}

    __device__ static u16* at(u16* tile, u32 j) {
        return tile + place<LENGTH>(Chosen::row(j), Chosen::column());
    }

    // Begins with the tile from k on.
    __device__ void begin(u16 (*tile)[SIZE * DEPTH], u32 k, u32 end) {
        if constexpr (COPIED) {
            part.each(k, end, [&](u32 j, const HALF* p) {
                // Zeros where there is nothing; the address is one of the operand all the same.
                copy_async<16>(at(tile[0], j), p == nullptr ? part.operand.p : p, p == nullptr ? 0 : 16);
            });
        } else {
#pragma unroll
            for (u32 j = 0; j < Chosen::EACH; ++j) chunks[j] = {};
            part.each_element(k, end, [&](u32 j, u32 e, typename Operand::Element x) {
                put_terms(chunks[j], e, x);
            });
        }
    }

    // Stores what was begun with, unless it is copied.
    __device__ void finish(u16 (*tile)[SIZE * DEPTH]) const {
        if constexpr (!COPIED) {
#pragma unroll
            for (u32 j = 0; j < Chosen::EACH; ++j)
#pragma unroll
                for (u32 t = 0; t < PLANES; ++t) *(Chunk*)at(tile[t], j) = chunks[j].terms[t];
        }
    }
};

// 16 rows by 16 of k.
template <bool ALONG>
__device__ inline void load_left(u32* r, const u16* tile, u32 row, u32 k) {
    u32 lane = threadIdx.x % 32;
    if (ALONG)
        load_matrices(r, tile + place<DEPTH>(row + lane % 16, k + lane / 16 * 8));
    else
        load_turned(
            r, tile + place<TILE_M>(k + lane % 8 + lane / 16 * 8, row + lane / 8 % 2 * 8)
        );
}

// 16 columns by 16 of k.
template <bool ALONG>
__device__ inline void load_right(u32* r, const u16* tile, u32 column, u32 k) {
    u32 lane = threadIdx.x % 32;
    if (ALONG)
        load_matrices(
            r, tile + place<DEPTH>(column + lane % 8 + lane / 16 * 8, k + lane / 8 % 2 * 8)
        );
    else
        load_turned(
            r, tile + place<TILE_N>(k + lane % 8 + lane / 8 % 2 * 8, column + lane / 16 * 8)
        );
}

struct Stage {
    u16 left[PLANES][TILE_M * DEPTH], right[PLANES][TILE_N * DEPTH];
};

// Adds the products of terms that matter, smallest first.
template <bool A, bool B>
__device__ inline void multiply_tiles(
    float (*sums)[4][4], const Stage& tiles, u32 row, u32 column
) {
#pragma unroll
    for (u32 k = 0; k < DEPTH; k += PRODUCT_DEPTH)
#pragma unroll
        for (int order = PLANES - 1; order >= 0; --order)
#pragma unroll
            for (int t = order; t >= 0; --t) {
                u32 right[2][4];
#pragma unroll
                for (u32 j = 0; j < 2; ++j)
                    load_right<B>(right[j], tiles.right[order - t], column + j * 16, k);
#pragma unroll
                for (u32 i = 0; i < TILE_M / 32; ++i) {
                    u32 left[4];
                    load_left<A>(left, tiles.left[t], row + i * 16, k);
#pragma unroll
                    for (u32 j = 0; j < 4; ++j)
                        multiply(sums[i][j], left, &right[j / 2][j % 2 * 2]);
                }
            }
}

// Gives `store` the results of a tile, 32 rows at a time, so that neighbouring threads have
// neighbouring ones.
template <class Store>
__device__ inline void put_results(
    const float (*sums)[4][4], const Extent& extent, u32 row, u32 column, void* shared, Store store
) {
    float (*results)[TILE_N + 8] = (float (*)[TILE_N + 8]) shared;
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u32 down = warp % 2 * (TILE_M / 2), across = warp / 2 * 32;
#pragma unroll
    for (u32 part = 0; part < TILE_M; part += 32) {
        __syncthreads();
        if (down == part / (TILE_M / 2) * (TILE_M / 2)) {
#pragma unroll
            for (u32 h = 0; h < 4; ++h)
#pragma unroll
                for (u32 j = 0; j < 4; ++j) {
                    u32 i = part % (TILE_M / 2) / 16 + h / 2;
                    u32 r = h / 2 * 16 + h % 2 * 8 + lane / 4;
                    float2 two = make_float2(sums[i][j][h % 2 * 2], sums[i][j][h % 2 * 2 + 1]);
                    *(float2*)&results[r][across + j * 8 + lane % 4 * 2] = two;
                }
        }
        __syncthreads();
#pragma unroll 4
        for (u32 e = threadIdx.x * WIDE; e < 32 * TILE_N; e += THREADS * WIDE) {
            float x[WIDE];
            get_several<WIDE>(&results[e / TILE_N][e % TILE_N], 0, x);
            store.put(extent, row + part + e / TILE_N, column + e % TILE_N, x);
        }
    }
}

template <class A, class B, class Store>
__device__ inline void product(const Extent& extent, const A& a, const B& b, Store store) {
    extern __shared__ __align__(128) Stage stages[];
    u32 warp = threadIdx.x / 32, row = blockIdx.x * TILE_M, column = blockIdx.y * TILE_N;
    float sums[TILE_M / 32][4][4] = {};
    Bringer<A, WHOLE_LEFT, TILE_M> left(a, row, extent.m);
    Bringer<B, WHOLE_RIGHT, TILE_N> right(b, column, extent.n);
    u32 next = extent.begin;
#pragma unroll
    for (u32 stage = 0; stage < STAGES - 1; ++stage, next += DEPTH) {
        if (next < extent.end) {
            left.begin(stages[stage].left, next, extent.end);
            right.begin(stages[stage].right, next, extent.end);
            left.finish(stages[stage].left);
            right.finish(stages[stage].right);
        }
        commit_copies();
    }
    u32 stage = 0, free = STAGES - 1;
    for (u32 k = extent.begin; k < extent.end; k += DEPTH, next += DEPTH) {
        wait_for_copies<STAGES - 2>();
        // The tiles of this turn are there for all threads, and all have done with the last ones.
        __syncthreads();
        if (next < extent.end) {
            left.begin(stages[free].left, next, extent.end);
            right.begin(stages[free].right, next, extent.end);
        }
        commit_copies();
        multiply_tiles<A::ALONG, B::ALONG>(
            sums, stages[stage], warp % 2 * (TILE_M / 2), warp / 2 * 32
        );
        if (next < extent.end) {
            left.finish(stages[free].left);
            right.finish(stages[free].right);
        }
        free = stage;
        stage = stage + 1 == STAGES ? 0 : stage + 1;
    }
    put_results(sums, extent, row, column, stages, store);
}
