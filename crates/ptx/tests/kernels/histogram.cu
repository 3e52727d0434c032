#include "common.cuh"
// Counts bytes: each block in shared memory, then all into 256 global counters.
extern "C" __global__ void __launch_bounds__(128) histogram(const u8* __restrict__ x, u32* __restrict__ counts, int n) {
    __shared__ u32 mine[256];
    for (int i = threadIdx.x; i < 256; i += 128) mine[i] = 0;
    __syncthreads();
    for (int i = blockIdx.x * 128 + threadIdx.x; i < n; i += gridDim.x * 128) {
#ifdef PLAIN_SHARED
        mine[x[i]] += 1;
#else
        atomicAdd(&mine[x[i]], 1u);
#endif
    }
    __syncthreads();
    for (int i = threadIdx.x; i < 256; i += 128) {
#ifdef PLAIN_GLOBAL
        counts[i] += mine[i];
#else
        if (mine[i] > 0) atomicAdd(&counts[i], mine[i]);
#endif
    }
}
