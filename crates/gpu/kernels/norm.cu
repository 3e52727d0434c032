// The norm of all gradients.
#include "base.cuh"
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
    shared[threadIdx.x] = x;
    __syncthreads();
    for (u32 half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
        __syncthreads();
    }
    return shared[0];
}

// Sums of squares of parts of tensors, in f64: squares of f32 neither overflow nor vanish.
extern "C" __global__ void __launch_bounds__(256) squares(
    double* parts, const __grid_constant__ Norms table
) {
    __shared__ double shared[256];
    const Norm& t = table.of[tensor_of(table, blockIdx.x)];
    u32 first = (blockIdx.x - t.first) * PART, end = min(first + PART, t.count);
    double sum = 0.0;
    for (u32 i = first + threadIdx.x; i < end; i += 256) {
        double x = get(t.x, i);
        sum += x * x;
    }
    sum = over_block(sum, shared);
    if (threadIdx.x == 0) parts[table.base + blockIdx.x] = sum;
}

// The root of the sum of all parts.
extern "C" __global__ void __launch_bounds__(256) norm_of_parts(
    const double* parts, float* to, u32 count
) {
    __shared__ double shared[256];
    double sum = 0.0;
    for (u32 i = threadIdx.x; i < count; i += 256) sum += parts[i];
    sum = over_block(sum, shared);
    if (threadIdx.x == 0) *to = (float)sqrt(sum);
}
