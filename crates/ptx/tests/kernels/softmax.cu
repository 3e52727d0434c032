#include "common.cuh"
// Softmax by rows of a bf16 matrix: a block of 128 threads a row, any number of columns.
extern "C" __global__ void __launch_bounds__(128)
softmax(const u16* __restrict__ x, float* __restrict__ y, int columns) {
    __shared__ float part[2][4];
    const u16* row = x + (u64)blockIdx.x * columns;
    float* out = y + (u64)blockIdx.x * columns;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    float greatest = -3.0e38f;
    for (int i = threadIdx.x; i < columns; i += 128) greatest = fmaxf(greatest, bf16_to_f32(row[i]));
#ifdef ABSENT_LANES
    if (lane < 16) greatest = warp_max(greatest);
#else
    greatest = warp_max(greatest);
#endif
    if (lane == 0) part[0][warp] = greatest;
#ifndef NO_BARRIER
    __syncthreads();
#endif
    greatest = fmaxf(fmaxf(part[0][0], part[0][1]), fmaxf(part[0][2], part[0][3]));
    float sum = 0;
    for (int i = threadIdx.x; i < columns; i += 128) sum += exp2f((bf16_to_f32(row[i]) - greatest) * 1.44269504f);
    sum = warp_sum(sum);
#ifdef UNINITIALISED
    if (lane == 0 && warp < 3) part[1][warp] = sum;
#else
    if (lane == 0) part[1][warp] = sum;
#endif
#ifdef DIVERGENT_BARRIER
    if (lane < 20) __syncthreads();
#else
    __syncthreads();
#endif
    sum = part[1][0] + part[1][1] + part[1][2] + part[1][3];
    float scale = 1.0f / sum;
    for (int i = threadIdx.x; i < columns; i += 128) {
        out[i] = exp2f((bf16_to_f32(row[i]) - greatest) * 1.44269504f) * scale;
    }
}
