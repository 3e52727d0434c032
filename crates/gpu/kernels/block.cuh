// Sums and largest values over a block, in an order that its size alone decides.
#pragma once
#include "base.cuh"

struct Add {
    __device__ float operator()(float a, float b) const { return a + b; }
};
struct Larger {
    __device__ float operator()(float a, float b) const { return larger(a, b); }
};

// Over all threads of the block, each of which gets the result. Blocks are whole warps; `shared`
// has a place for each, and whoever read there before has been waited for.
template <class F>
__device__ inline float over_block(float x, F combine, float* shared) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
        x = combine(x, __shfl_xor_sync(0xffffffff, x, distance));
    u32 warps = blockDim.x / 32;
    if (warps > 1) {
        // By all lanes, which have the same.
        shared[threadIdx.x / 32] = x;
        __syncthreads();
        x = shared[0];
        for (u32 w = 1; w < warps; ++w) x = combine(x, shared[w]);
    }
    return x;
}

// Whether this is the last of so many blocks that end: it finds what all of them have written
// before. The counter is zero at first, and again behind the last one.
__device__ inline bool is_last(u32* counter, u32 blocks) {
    __shared__ bool last;
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        last = atomicInc(counter, blocks - 1) == blocks - 1;
        __threadfence();
    }
    __syncthreads();
    return last;
}
