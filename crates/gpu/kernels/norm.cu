// The norm of all gradients.
#include "base.cuh"
#include "block.cuh"
#include "table.cuh"

struct Norm {
    const TypeX* x;
    u32 count, first;
};
struct Norms {
    u32 tensors, base;
    Norm of[200];
};

// The sum over the block in f64, in an order of its own; thread 0 gets it.
__device__ inline double over_block(double x, double* shared) {
    // What an earlier call left there has been read.
    __syncthreads();
    shared[threadIdx.x] = x;
    __syncthreads();
    for (u32 half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
        __syncthreads();
    }
    return shared[0];
}

// Sums of squares of parts of tensors, in f64: squares of f32 neither overflow nor vanish. The last
// launch of a norm has a counter: its last block takes the root of the sum of all `count` parts.
extern "C" __global__ void __launch_bounds__(256) squares(
    double* parts, float* norm, u32* counter, u32 count, const __grid_constant__ Norms table
) {
    __shared__ double shared[256];
    const Norm& t = table.of[tensor_of(table, blockIdx.x)];
    u32 first = (blockIdx.x - t.first) * PART, end = min(first + PART, t.count);
    double sum = 0.0;
#pragma unroll 4
    for (u32 i = first + threadIdx.x; i < end; i += 256) {
        double x = get(t.x, i);
        sum += x * x;
    }
    sum = over_block(sum, shared);
    if (threadIdx.x == 0) parts[table.base + blockIdx.x] = sum;
    if (counter == nullptr || !is_last(counter, gridDim.x)) return;
    sum = 0.0;
#pragma unroll 4
    for (u32 i = threadIdx.x; i < count; i += 256) sum += parts[i];
    sum = over_block(sum, shared);
    if (threadIdx.x == 0) *norm = (float)sqrt(sum);
}
