// A product of two operands that say themselves where their elements lie: exact f32 products, added
// by fused multiplications in ascending order of k.
//
// Tiles of TILE_M by TILE_N, DEPTH of k at a time; a thread has 8 by 8 results.
#pragma once

// 4 more: rows of chunks that are stored turned begin in other banks.
template <u32 SIZE>
using Tile = float[DEPTH][SIZE + 4];

template <class Operand, bool WHOLE, u32 SIZE>
struct Bringer {
    typedef Part<Operand, WHOLE, SIZE> Chosen;
    Chosen part;
    float chunks[Chosen::EACH][CHUNK];

    __device__ Bringer(const Operand& operand, u32 first, u32 count) : part(operand, first, count) {}

    __device__ void begin(u32 k, u32 end) {
#pragma unroll
        for (u32 j = 0; j < Chosen::EACH; ++j)
#pragma unroll
            for (u32 e = 0; e < CHUNK; ++e) chunks[j][e] = 0.0f;
        part.each_element(k, end, [&](u32 j, u32 e, typename Operand::Element x) {
            chunks[j][e] = widened(x);
        });
    }

    __device__ void finish(Tile<SIZE>& tile) const {
#pragma unroll
        for (u32 j = 0; j < Chosen::EACH; ++j) {
            if constexpr (Operand::ALONG) {
#pragma unroll
                for (u32 e = 0; e < CHUNK; ++e)
                    tile[Chosen::column() + e][Chosen::row(j)] = chunks[j][e];
            } else {
                put_several<CHUNK>(&tile[Chosen::row(j)][Chosen::column()], 0, chunks[j]);
            }
        }
    }
};

// The 8 rows or columns of a thread: 4 neighbours in each half of a tile.
template <u32 SIZE>
__device__ inline u32 half(u32 at, u32 which) {
    return which * (SIZE / 2) + at * 4;
}

// Calls `use(put)` when the sums are there; put(store) gives a store its results.
template <class A, class B, class Use>
__device__ inline void product(const Extent& extent, const A& a, const B& b, Use use) {
    __shared__ alignas(16) Tile<TILE_M> as[2];
    __shared__ alignas(16) Tile<TILE_N> bs[2];
    u32 across = threadIdx.x % (TILE_N / 8), down = threadIdx.x / (TILE_N / 8);
    u32 row = blockIdx.x * TILE_M, column = blockIdx.y * TILE_N;
    float sums[8][8] = {};
    Bringer<A, WHOLE_LEFT, TILE_M> left(a, row, extent.m);
    Bringer<B, WHOLE_RIGHT, TILE_N> right(b, column, extent.n);
    left.begin(extent.begin, extent.end);
    right.begin(extent.begin, extent.end);
    for (u32 k = extent.begin, turn = 0; k < extent.end; k += DEPTH, turn ^= 1) {
        left.finish(as[turn]);
        right.finish(bs[turn]);
        __syncthreads();
        if (k + DEPTH < extent.end) {
            left.begin(k + DEPTH, extent.end);
            right.begin(k + DEPTH, extent.end);
        }
#pragma unroll
        for (u32 d = 0; d < DEPTH; ++d) {
            float x[8], y[8];
#pragma unroll
            for (u32 h = 0; h < 2; ++h) {
                get_several<4>(&as[turn][d][half<TILE_M>(down, h)], 0, x + 4 * h);
                get_several<4>(&bs[turn][d][half<TILE_N>(across, h)], 0, y + 4 * h);
            }
#pragma unroll
            for (u32 i = 0; i < 8; ++i)
#pragma unroll
                for (u32 j = 0; j < 8; ++j) sums[i][j] = fmaf(x[i], y[j], sums[i][j]);
        }
    }
    use([&](auto store) {
#pragma unroll
        for (u32 j = 0; j < 8; j += WIDE) {
            store.begin(extent, column + half<TILE_N>(across, j / 4) + j % 4);
#pragma unroll
            for (u32 h = 0; h < 2; ++h)
                store.template put<4>(
                    extent, [&](u32 i) { return row + half<TILE_M>(down, h) + i; },
                    [&](u32 i, float* x) {
#pragma unroll
                        for (u32 e = 0; e < WIDE; ++e) x[e] = sums[4 * h + i][j + e];
                    }
                );
        }
    });
}
