// A product of two operands that say themselves where their elements lie: exact f32 products, added
// by fused multiplications in ascending order of k. With TF32 operands are rounded to that.
#pragma once
#include "after.cuh"

#define THREADS 256

__device__ inline float factor(float x) {
#ifdef TF32
    u32 code;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(code) : "f"(x));
    // The lower bits of the code have no meaning.
    return __uint_as_float(code & 0xffffe000);
#else
    return x;
#endif
}

template <class Operand>
__device__ inline float element(const Operand& operand, u32 i, u32 k) {
    auto p = operand.find(i, k);
    return p == nullptr ? 0.0f : factor(widened(*p));
}

// Tiles of 64 by 64, 16 of k at a time; 256 threads with 4 by 4 results each.
// Over k from `begin` on.
template <class A, class B, class Store>
__device__ inline void product(
    u32 m, u32 n, u32 begin, u32 k, const A& a, const B& b, Store store
) {
    const u32 TILE = 64, DEPTH = 16;
    // 66: neighbours in k are two banks apart, and neighbours in m or n one.
    __shared__ float as[DEPTH][TILE + 2], bs[DEPTH][TILE + 2];
    u32 across = threadIdx.x % 16, down = threadIdx.x / 16;
    u32 row = blockIdx.x * TILE, column = blockIdx.y * TILE;
    float sums[4][4] = {};
    for (u32 first = begin; first < k; first += DEPTH) {
#pragma unroll
        for (u32 j = 0; j < TILE * DEPTH; j += 256) {
            u32 e = threadIdx.x + j;
            u32 r = A::ALONG ? e / DEPTH : e % TILE, ra = A::ALONG ? e % DEPTH : e / TILE;
            as[ra][r] = row + r < m && first + ra < k ? element(a, row + r, first + ra) : 0.0f;
            u32 c = B::ALONG ? e / DEPTH : e % TILE, rb = B::ALONG ? e % DEPTH : e / TILE;
            bs[rb][c] =
                column + c < n && first + rb < k ? element(b, column + c, first + rb) : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (u32 d = 0; d < DEPTH; ++d) {
            float x[4], y[4];
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                x[i] = as[d][down + 16 * i];
                y[i] = bs[d][across + 16 * i];
            }
#pragma unroll
            for (u32 i = 0; i < 4; ++i)
#pragma unroll
                for (u32 j = 0; j < 4; ++j) sums[i][j] = fmaf(x[i], y[j], sums[i][j]);
        }
        __syncthreads();
    }
#pragma unroll
    for (u32 i = 0; i < 4; ++i)
#pragma unroll
        for (u32 j = 0; j < 4; ++j) {
            u32 r = row + down + 16 * i, c = column + across + 16 * j;
            if (r < m && c < n) store(r, c, sums[i][j]);
        }
}
