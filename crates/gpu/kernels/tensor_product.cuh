// A product on Tensor Cores of two operands that say themselves where their elements lie: operands
// of 16 bits or codes that those hold, or f32 as PLANES terms of bf16 each; f32 that is rounded to
// tf32 when it is multiplied; or codes of 8 bits. Products are exact and added in f32, 32 bytes of k
// at a time, in ascending order.
//
// Tiles of TILE_M by TILE_N, DEPTH of k at a time in one of STAGES pieces of shared memory. Chunks
// of operands that are multiplied as they are stored are copied there without passing through
// registers, several stages ahead; others are converted on the way.
#pragma once
#include "asynchronous.cuh"
#include "tensor.cuh"

// Elements of k of a product of Tensor Cores.
#define PRODUCT_DEPTH (32 / BYTES)

// A chunk of neighbours, of each term.
struct alignas(16) Chunk {
    Unit of[CHUNK];
};
struct Chunks {
    Chunk terms[PLANES];
};

#ifdef HALF
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
#elif BYTES == 1
template <class T>
__device__ inline void put_terms(Chunks& c, u32 at, T value) {
    c.terms[0].of[at] = value.code;
}
#else
__device__ inline void put_terms(Chunks& c, u32 at, float value) {
    c.terms[0].of[at] = __float_as_uint(value);
}
#endif

// Where the element at `column` of a row of LENGTH elements lies, which is of i or, with ALONG, of k:
// chunks change places with the row, so that neither loads nor stores meet in a bank.
template <u32 LENGTH, bool ALONG>
__device__ inline u32 place(u32 row, u32 column) {
    u32 turn = LENGTH * BYTES == 64 ? row / 2 % 4 : row % 8;
    // Of the rows that `bytes_across` and `words_across` load at a time.
    if (!ALONG && BYTES == 1) turn = LENGTH == 64 ? row / 4 % 4 : row % 2 + row / 4 % 4 * 2;
    if (!ALONG && BYTES == 4) turn = row % 4 * 2;
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
#ifdef HALF
    static const bool COPIED = WHOLE && PLANES == 1 && Same<typename Operand::Element, HALF>::VALUE;
#else
    static const bool COPIED = WHOLE;
#endif
    static const u32 LENGTH = Operand::ALONG ? DEPTH : SIZE;
    Chosen part;
    Chunks chunks[COPIED ? 1 : Chosen::EACH];

    __device__ Bringer(const Operand& operand, u32 first, u32 count) : part(operand, first, count) {}

    __device__ static u32 at(u32 j) {
        return place<LENGTH, Operand::ALONG>(Chosen::row(j), Chosen::column());
    }

    // Begins with the tile from k on.
    __device__ void begin(Unit (*tile)[SIZE * DEPTH], u32 k, u32 end) {
        if constexpr (COPIED) {
            u32 to = shared_address(tile);
            part.each(k, end, [&](u32 j, Found found) {
                // Zeros where there is nothing; the address is one of the operand all the same.
                auto from = part.operand.p + (found.there ? found.at : 0);
                copy_async<16>(to + BYTES * at(j), from, found.there ? 16 : 0);
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
    __device__ void finish(Unit (*tile)[SIZE * DEPTH]) const {
        if constexpr (!COPIED) {
#pragma unroll
            for (u32 j = 0; j < Chosen::EACH; ++j)
#pragma unroll
                for (u32 t = 0; t < PLANES; ++t) *(Chunk*)(tile[t] + at(j)) = chunks[j].terms[t];
        }
    }
};

#if BYTES == 1
// From rows of k, 16 of i by 32 of k. Matrices cannot be turned byte by byte: turned by pairs, with
// rows of k in the order 0 1 4 5 8 9 12 13 and 2 3 6 7 10 11 14 15 of each 16, a thread has two
// neighbours in i of each 4 neighbours in k. `even` gets those of even i, of both halves of k, and
// `odd` the others: element g of 8 is 2 g or 2 g + 1 of i, which `put_results` knows.
template <u32 SIZE>
__device__ inline void bytes_across(u32* even, u32* odd, const Unit* tile, u32 i, u32 k) {
    u32 pairs[4], lane = threadIdx.x % 32, matrix = lane / 8;
    u32 row = k + matrix / 2 * 16 + lane % 8 / 2 * 4 + matrix % 2 * 2 + lane % 2;
    load_turned(pairs, shared_address(tile) + place<SIZE, false>(row, i));
#pragma unroll
    for (u32 h = 0; h < 2; ++h) {
        even[h] = __byte_perm(pairs[2 * h], pairs[2 * h + 1], 0x6420);
        odd[h] = __byte_perm(pairs[2 * h], pairs[2 * h + 1], 0x7531);
    }
}
#endif

#if BYTES == 4
// From rows of k, 8 of i by 8 of k.
template <u32 SIZE>
__device__ inline void words_across(u32* near, u32* far, const Unit* tile, u32 i, u32 k) {
    u32 lane = threadIdx.x % 32;
    *near = tile[place<SIZE, false>(k + lane % 4, i + lane / 4)];
    *far = tile[place<SIZE, false>(k + lane % 4 + 4, i + lane / 4)];
}
#endif

// What is multiplied of loaded elements.
__device__ inline void round_loaded(u32* r) {
#if BYTES == 4
#pragma unroll
    for (u32 e = 0; e < 4; ++e)
        asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r[e]) : "f"(__uint_as_float(r[e])));
#endif
}

// 16 rows by PRODUCT_DEPTH of k, from `row` + `more` and `k` on, of which `more` is a multiple of 16.
// What differs in `more` along k, or in k across it, has the same turns, and needs one address with
// constant distances to it: registers do not suffice for an address of each.
template <bool ALONG>
__device__ inline void load_left(u32* r, const Unit* tile, u32 row, u32 more, u32 k) {
    u32 lane = threadIdx.x % 32;
    if constexpr (ALONG) {
        u32 at = place<DEPTH, true>(row + lane % 16, k + lane / 16 * CHUNK);
        load_matrices(r, shared_address(tile) + BYTES * at + BYTES * DEPTH * more);
    } else {
        row += more;
#if BYTES == 1
        u32 even[2], odd[2];
        bytes_across<TILE_M>(even, odd, tile, row, k);
        r[0] = even[0], r[1] = odd[0], r[2] = even[1], r[3] = odd[1];
#elif BYTES == 2
        u32 at = place<TILE_M, false>(lane % 8 + lane / 16 * 8, row + lane / 8 % 2 * 8);
        load_turned(r, shared_address(tile) + BYTES * at + BYTES * TILE_M * k);
#else
        words_across<TILE_M>(r, r + 2, tile, row, k);
        words_across<TILE_M>(r + 1, r + 3, tile, row + 8, k);
#endif
    }
    round_loaded(r);
}

// The same of columns.
template <bool ALONG>
__device__ inline void load_right(u32* r, const Unit* tile, u32 column, u32 more, u32 k) {
    u32 lane = threadIdx.x % 32;
    if constexpr (ALONG) {
        u32 i = column + lane % 8 + lane / 16 * 8;
        u32 at = place<DEPTH, true>(i, k + lane / 8 % 2 * CHUNK);
        load_matrices(r, shared_address(tile) + BYTES * at + BYTES * DEPTH * more);
    } else {
        column += more;
#if BYTES == 1
        bytes_across<TILE_N>(r, r + 2, tile, column, k);
#elif BYTES == 2
        u32 at = place<TILE_N, false>(lane % 8 + lane / 8 % 2 * 8, column + lane / 16 * 8);
        load_turned(r, shared_address(tile) + BYTES * at + BYTES * TILE_N * k);
#else
        words_across<TILE_N>(r, r + 1, tile, column, k);
        words_across<TILE_N>(r + 2, r + 3, tile, column + 8, k);
#endif
    }
    round_loaded(r);
}

struct Stage {
    Unit left[PLANES][TILE_M * DEPTH], right[PLANES][TILE_N * DEPTH];
};

// Adds the products of terms that matter, smallest first.
template <bool A, bool B>
__device__ inline void multiply_tiles(
    float (*sums)[WARP_N / 8][4], const Stage& tiles, u32 row, u32 column
) {
#pragma unroll
    for (u32 k = 0; k < DEPTH; k += PRODUCT_DEPTH)
#pragma unroll
        for (int order = PLANES - 1; order >= 0; --order)
#pragma unroll
            for (int t = order; t >= 0; --t) {
                u32 right[WARP_N / 16][4];
#pragma unroll
                for (u32 j = 0; j < WARP_N / 16; ++j)
                    load_right<B>(right[j], tiles.right[order - t], column, j * 16, k);
#pragma unroll
                for (u32 i = 0; i < TILE_M / 32; ++i) {
                    u32 left[4];
                    load_left<A>(left, tiles.left[t], row, i * 16, k);
#pragma unroll
                    for (u32 j = 0; j < WARP_N / 8; ++j)
                        multiply(sums[i][j], left, &right[j / 2][j % 2 * 2]);
                }
            }
}

// Gives `store` the results of a tile, half of each warp's rows at a time, so that neighbouring
// threads have neighbouring ones. A and B say of the operands whether they were stored along k.
template <bool A, bool B, class Store>
__device__ inline void put_results(
    const float (*sums)[WARP_N / 8][4], const Extent& extent, void* shared, Store store
) {
    // So that what lanes store at a time lies in different banks.
    const u32 MORE = BYTES != 1 || A == B ? 8 : A ? 16 : 4;
    const u32 ROWS = TILE_M / 4;
    float (*results)[TILE_N + MORE] = (float (*)[TILE_N + MORE]) shared;
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, across = warp / 2 * WARP_N;
    u32 row = blockIdx.x * TILE_M, column = threadIdx.x * WIDE % TILE_N;
    store.begin(extent, blockIdx.y * TILE_N + column);
#pragma unroll
    for (u32 part = 0; part < 2; ++part) {
        __syncthreads();
#pragma unroll
        for (u32 h = 0; h < ROWS / 8; ++h)
#pragma unroll
            for (u32 j = 0; j < WARP_N / 8; ++j) {
                u32 i = part * ROWS / 16 + h / 2;
                const float* two = &sums[i][j][h % 2 * 2];
                u32 r = h / 2 * 16 + h % 2 * 8 + lane / 4;
                // As `bytes_across` has them.
                if (!A && BYTES == 1) r = h / 2 * 16 + lane / 4 * 2 + h % 2;
                float* to = &results[warp % 2 * ROWS + r][across + j * 8];
                if (B || BYTES != 1) {
                    *(float2*)(to + lane % 4 * 2) = make_float2(two[0], two[1]);
                } else if (j % 2 == 0) {
                    const float* odd = &sums[i][j + 1][h % 2 * 2];
                    *(float4*)(to + lane % 4 * 4) = make_float4(two[0], odd[0], two[1], odd[1]);
                }
            }
        __syncthreads();
        // Rows of the block's threads, and the thread's own elements, of which there are some at a
        // time.
        const u32 DOWN = THREADS * WIDE / TILE_N, ALL = 2 * ROWS / DOWN, COUNT = ALL < 8 ? ALL : 8;
#pragma unroll
        for (u32 n = 0; n < ALL; n += COUNT) {
            auto from = [&](u32 i) { return threadIdx.x * WIDE / TILE_N + (n + i) * DOWN; };
            store.template put<COUNT>(
                extent,
                [&](u32 i) {
                    u32 r = from(i);
                    return row + r / ROWS * (TILE_M / 2) + part * ROWS + r % ROWS;
                },
                [&](u32 i, float* x) { get_several<WIDE>(&results[from(i)][column], 0, x); }
            );
        }
    }
}

// Calls `use(put)` when the sums are there; put(store) gives a store its results.
template <class A, class B, class Use>
__device__ inline void product(const Extent& extent, const A& a, const B& b, Use use) {
    extern __shared__ __align__(128) Stage stages[];
    u32 warp = threadIdx.x / 32;
    float sums[TILE_M / 32][WARP_N / 8][4] = {};
    Bringer<A, WHOLE_LEFT, TILE_M> left(a, blockIdx.x * TILE_M, extent.m);
    Bringer<B, WHOLE_RIGHT, TILE_N> right(b, blockIdx.y * TILE_N, extent.n);
    u32 next = extent.begin;
    // Code that converts is long: there it is made once.
    const u32 AT_ONCE =
        Bringer<A, WHOLE_LEFT, TILE_M>::COPIED && Bringer<B, WHOLE_RIGHT, TILE_N>::COPIED ? STAGES : 1;
#pragma unroll AT_ONCE
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
            sums, stages[stage], warp % 2 * (TILE_M / 2), warp / 2 * WARP_N
        );
        if (next < extent.end) {
            left.finish(stages[free].left);
            right.finish(stages[free].right);
        }
        free = stage;
        stage = stage + 1 == STAGES ? 0 : stage + 1;
    }
    use([&](auto store) { put_results<A::ALONG, B::ALONG>(sums, extent, stages, store); });
}
