#include "common.cuh"
// Operands that lie across: C[16, 16] = Aᵀ · B with A[k, 16] and B[k, 16] of bf16, k = 16 ·
// gridless steps, one warp. Both fragments come by transposing loads; C is written by `stmatrix` as
// bf16 where COMPACT is set, and once more turned.
extern "C" __global__ void __launch_bounds__(32)
transposed(const u16* __restrict__ a, const u16* __restrict__ b, u16* __restrict__ c, u16* __restrict__ turned, int k) {
    __shared__ __align__(16) u16 sa[16 * 16], sb[16 * 16], sc[16 * 16];
    int lane = threadIdx.x;
    float sum[2][4] = {};
    for (int k0 = 0; k0 < k; k0 += 16) {
        __syncwarp();
        int row = lane >> 1, half = (lane & 1) * 8;
        *(uint4*)(sa + row * 16 + half) = *(const uint4*)(a + (k0 + row) * 16 + half);
        *(uint4*)(sb + row * 16 + half) = *(const uint4*)(b + (k0 + row) * 16 + half);
        __syncwarp();
        u32 fa[4], fb[4];
        load_matrices_transposed(fa, sa + ((lane & 7) + (lane >> 4) * 8) * 16 + (lane >> 3 & 1) * 8);
        load_matrices_transposed(fb, sb + (lane & 15) * 16 + (lane >> 4) * 8);
        for (int j = 0; j < 2; j++) {
            MULTIPLY("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", sum[j], fa, fb[j * 2], fb[j * 2 + 1]);
        }
    }
    u32 packed[4], back[4];
    for (int j = 0; j < 2; j++)
        for (int h = 0; h < 2; h++) packed[j * 2 + h] = pack_bf16(sum[j][h * 2], sum[j][h * 2 + 1]);
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
                     shared_address(sc + (lane & 15) * 16 + (lane >> 4) * 8)),
                 "r"(packed[0]), "r"(packed[1]), "r"(packed[2]), "r"(packed[3]) : "memory");
    __syncwarp();
    *(uint4*)(c + (lane >> 1) * 16 + (lane & 1) * 8) = *(const uint4*)(sc + (lane >> 1) * 16 + (lane & 1) * 8);
    for (int i = 0; i < 4; i++) asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(back[i]) : "r"(packed[i]));
    for (int j = 0; j < 2; j++)
        for (int h = 0; h < 2; h++)
            *(u32*)(turned + (j * 8 + (lane >> 2)) * 16 + h * 8 + (lane & 3) * 2) = back[j * 2 + h];
}
