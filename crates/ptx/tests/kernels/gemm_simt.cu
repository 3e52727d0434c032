#include "common.cuh"
// C[m, n] = A[m, k] · B[k, n] in f32: 32 × 32 tiles, 64 threads with 4 × 4 elements each, any
// sizes.
#define TILE 32
#define DEPTH 16
extern "C" __global__ void __launch_bounds__(64)
gemm_simt(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, int m, int n, int k) {
    __shared__ float sa[DEPTH][TILE + 1];
    __shared__ float sb[DEPTH][TILE];
    int thread = threadIdx.x, tx = thread % 8, ty = thread / 8;
    int m0 = blockIdx.y * TILE, n0 = blockIdx.x * TILE;
    float sum[4][4] = {};
    for (int k0 = 0; k0 < k; k0 += DEPTH) {
#pragma unroll 1
        for (int i = thread; i < TILE * DEPTH; i += 64) {
            int row = i / DEPTH, kk = i % DEPTH;
            bool inside = m0 + row < m && k0 + kk < k;
            sa[kk][row] = inside ? a[(u64)(m0 + row) * k + k0 + kk] : 0;
            int column = i % TILE, kb = i / TILE;
#ifdef UNGUARDED
            bool inside_b = k0 + kb < k;
#else
            bool inside_b = n0 + column < n && k0 + kb < k;
#endif
            sb[kb][column] = inside_b ? b[(u64)(k0 + kb) * n + n0 + column] : 0;
        }
        __syncthreads();
#pragma unroll 1
        for (int kk = 0; kk < DEPTH; kk++) {
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) sum[i][j] += sa[kk][ty * 4 + i] * sb[kk][tx * 4 + j];
        }
#ifndef NO_SECOND_BARRIER
        __syncthreads();
#endif
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
            int row = m0 + ty * 4 + i, column = n0 + tx * 4 + j;
            if (row < m && column < n) c[(u64)row * n + column] = sum[i][j];
        }
}
