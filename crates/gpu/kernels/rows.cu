// One row to a block: softmax, layer norm, losses.
#include "base.cuh"
#include "block.cuh"
#include "math.cuh"

// The largest element of a row of logits and the sum of exponentials of the distances to it.
__device__ inline float2 exponentials(const TypeX* x, u32 row, u32 size, float* shared) {
    float most = -INFINITE;
    for (u32 i = threadIdx.x; i < size; i += blockDim.x) most = larger(most, get(x, row + i));
    most = over_block(most, Larger(), shared);
    float sum = 0.0f;
    for (u32 i = threadIdx.x; i < size; i += blockDim.x) sum += exponential(get(x, row + i) - most);
    return make_float2(most, over_block(sum, Add(), shared));
}

extern "C" __global__ void softmax(const TypeX* x, TypeY* y, u32 size) {
    __shared__ float shared[32];
    u32 row = blockIdx.x * size;
    float2 e = exponentials(x, row, size, shared);
    for (u32 i = threadIdx.x; i < size; i += blockDim.x)
        put(y, row + i, exponential(get(x, row + i) - e.x) / e.y);
}

extern "C" __global__ void cross_entropy(
    const TypeX* x, const int* target, float* loss, float* lse, u32 size
) {
    __shared__ float shared[32];
    u32 row = blockIdx.x * size;
    float2 e = exponentials(x, row, size, shared);
    if (threadIdx.x > 0) return;
    // Of an infinite maximum the interpreter takes it for the logarithm.
    float log_sum = is_finite(e.x) ? e.x + logarithm(e.y) : e.x;
    loss[blockIdx.x] = log_sum - get(x, row + target[blockIdx.x]);
    lse[blockIdx.x] = log_sum;
}

// May be written over x.
extern "C" __global__ void cross_entropy_grad(
    const TypeX* x, const int* target, const float* lse, const float* dloss, TypeY* dx, u32 count,
    u32 size
) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    u32 row = i / size;
    float p = exponential(get(x, i) - lse[row]);
    put(dx, i, (p - (i % size == (u32)target[row] ? 1.0f : 0.0f)) * dloss[row]);
}

extern "C" __global__ void layer_norm(
    const TypeX* x, const TypeG* gamma, const TypeG* beta, TypeY* y, float* mean, float* rstd,
    u32 size, float eps
) {
    __shared__ float shared[32];
    u32 row = blockIdx.x * size;
    float sum = 0.0f;
    for (u32 i = threadIdx.x; i < size; i += blockDim.x) sum += get(x, row + i);
    float m = over_block(sum, Add(), shared) / (float)size;
    float squares = 0.0f;
    for (u32 i = threadIdx.x; i < size; i += blockDim.x) {
        float d = get(x, row + i) - m;
        squares = fmaf(d, d, squares);
    }
    float r = 1.0f / sqrtf(over_block(squares, Add(), shared) / (float)size + eps);
    for (u32 i = threadIdx.x; i < size; i += blockDim.x)
        put(y, row + i, fmaf((get(x, row + i) - m) * r, get(gamma, i), get(beta, i)));
    if (threadIdx.x == 0) {
        mean[blockIdx.x] = m;
        rstd[blockIdx.x] = r;
    }
}

// The position of the first largest element; NaN counts as largest.
extern "C" __global__ void argmax(const TypeX* x, int* y, u32 size) {
    __shared__ float values[32];
    __shared__ u32 places[32];
    u32 row = blockIdx.x * size;
    float best = -INFINITE;
    u32 place = ~0u;
    // Whether v at i comes before what was found.
    auto take = [&](float v, u32 i) {
        bool more = is_nan(v) ? !is_nan(best) : v > best;
        bool same = is_nan(v) ? is_nan(best) : v == best;
        if (more || (same && i < place)) {
            best = v;
            place = i;
        }
    };
    for (u32 i = threadIdx.x; i < size; i += blockDim.x) take(get(x, row + i), i);
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
        float v = __shfl_xor_sync(0xffffffff, best, distance);
        u32 i = __shfl_xor_sync(0xffffffff, place, distance);
        take(v, i);
    }
    if (threadIdx.x % 32 == 0) {
        values[threadIdx.x / 32] = best;
        places[threadIdx.x / 32] = place;
    }
    __syncthreads();
    if (threadIdx.x > 0) return;
    for (u32 w = 1; w < blockDim.x / 32; ++w) take(values[w], places[w]);
    y[blockIdx.x] = (int)place;
}
