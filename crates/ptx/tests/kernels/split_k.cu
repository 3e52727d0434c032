#include "common.cuh"
// Row sums in parts: block (part, row) adds a part of a row; the block of a row that comes last
// adds the parts in their order, so that the result does not depend on which one it is. `arrived`
// has a zero for each row before and after.
extern "C" __global__ void __launch_bounds__(64)
split_k(const float* __restrict__ x, float* parts, u32* arrived, float* __restrict__ y, int columns) {
    __shared__ float half[2];
    __shared__ bool last;
    int row = blockIdx.y, part = blockIdx.x, count = gridDim.x;
    int size = (columns + count - 1) / count, begin = part * size, end = min(begin + size, columns);
    float sum = 0;
    for (int i = begin + threadIdx.x; i < end; i += 64) sum += x[(u64)row * columns + i];
    sum = warp_sum(sum);
    if ((threadIdx.x & 31) == 0) half[threadIdx.x >> 5] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
#ifdef RACE_BETWEEN_BLOCKS
        y[row] += half[0] + half[1];
        last = false;
#else
        parts[row * count + part] = half[0] + half[1];
#ifndef NO_FENCE
        __threadfence();
#endif
        last = atomicAdd(&arrived[row], 1u) == count - 1;
#endif
    }
    __syncthreads();
    if (!last || threadIdx.x != 0) return;
    __threadfence();
    float total = 0;
    for (int i = 0; i < count; i++) total += ((volatile float*)parts)[row * count + i];
    y[row] = total;
    arrived[row] = 0;
}
