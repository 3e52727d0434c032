#include "common.cuh"
// C[m, n] = A[m, k] · B[n, k]ᵀ with f32 sums and results: 64 × 64 tiles, 4 warps of 32 × 32, rows
// of 64 bytes of k in three stages of cp.async. The rows of A and B are multiples of 16 bytes; m
// and n are any. `ldmatrix` moves bytes, so that fragments of 1, 2 and 4 bytes an element are
// loaded alike: 32 bytes of k make one product.
#if defined(TF32)
typedef u32 element;
#define INSTRUCTION "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"
#elif defined(E4M3)
typedef u8 element;
#define INSTRUCTION "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32"
#elif defined(F16)
typedef u16 element;
#define INSTRUCTION "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"
#else
typedef u16 element;
#define INSTRUCTION "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"
#endif
#define TILE 64
#define ROW_BYTES 64
#define STAGES 3

// Where a piece of 16 bytes lies in a tile: its place in the row is turned, so that eight rows meet
// eight banks.
__device__ __forceinline__ int place(int row, int piece) { return row * ROW_BYTES + ((piece ^ (row >> 1 & 3)) << 4); }

extern "C" __global__ void __launch_bounds__(128)
gemm_mma(const u8* __restrict__ a, const u8* __restrict__ b, float* __restrict__ c, int m, int n, int row_bytes) {
    extern __shared__ __align__(128) u8 tiles[];
    u8 *sa = tiles, *sb = tiles + STAGES * TILE * ROW_BYTES;
    int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5, wm = warp >> 1, wn = warp & 1;
    int m0 = blockIdx.y * TILE, n0 = blockIdx.x * TILE;
    float sum[2][4][4] = {};
    int steps = (row_bytes + ROW_BYTES - 1) / ROW_BYTES;
    auto load = [&](int step) {
        u8 *ta = sa + step % STAGES * TILE * ROW_BYTES, *tb = sb + step % STAGES * TILE * ROW_BYTES;
        for (int i = thread; i < TILE * 4; i += 128) {
            int row = i >> 2, piece = i & 3, at = step * ROW_BYTES + piece * 16;
            bool in_a = m0 + row < m && at < row_bytes;
#ifdef UNGUARDED
            bool in_b = at < row_bytes;
#else
            bool in_b = n0 + row < n && at < row_bytes;
#endif
            copy_async16(ta + place(row, piece), in_a ? a + (u64)(m0 + row) * row_bytes + at : a, in_a);
            copy_async16(tb + place(row, piece), in_b ? b + (u64)(n0 + row) * row_bytes + at : b, in_b);
        }
    };
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < steps) load(s);
        copy_commit();
    }
    for (int step = 0; step < steps; step++) {
#ifdef SHORT_WAIT
        copy_wait<STAGES - 1>();
#elif !defined(NO_WAIT)
        copy_wait<STAGES - 2>();
#endif
#ifndef NO_BARRIER
        __syncthreads();
#endif
        if (step + STAGES - 1 < steps) load(step + STAGES - 1);
        copy_commit();
        const u8 *ta = sa + step % STAGES * TILE * ROW_BYTES, *tb = sb + step % STAGES * TILE * ROW_BYTES;
#pragma unroll
        for (int part = 0; part < ROW_BYTES / 32; part++) {
            u32 fa[2][4], fb[2][4];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                load_matrices(fa[i], ta + place(wm * 32 + i * 16 + (lane & 15), part * 2 + (lane >> 4)));
                int row = wn * 32 + i * 16 + (lane & 7) + ((lane >> 4) << 3);
                load_matrices(fb[i], tb + place(row, part * 2 + (lane >> 3 & 1)));
            }
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    u32(&columns)[4] = fb[j >> 1];
                    MULTIPLY(INSTRUCTION, sum[i][j], fa[i], columns[(j & 1) * 2], columns[(j & 1) * 2 + 1]);
                }
        }
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 4; j++)
            for (int e = 0; e < 4; e++) {
                int row = m0 + wm * 32 + i * 16 + (lane >> 2) + (e >> 1) * 8;
                int column = n0 + wn * 32 + j * 8 + (lane & 3) * 2 + (e & 1);
                if (row < m && column < n) c[(u64)row * n + column] = sum[i][j][e];
            }
}
