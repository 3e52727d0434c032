// One row to a block: softmax, layer norm, losses.
#include "block.cuh"
#include "math.cuh"
#include "rows.cuh"

// The largest element of a row of logits and the sum of exponentials of the distances to it.
__device__ inline float2 exponentials(Part<TypeX>& x, u32 size, float (*shared)[32]) {
    float most = -INFINITE;
    for_each(size, [&](u32 e, u32 i) {
        const float* v = x.first(e, i);
#pragma unroll
        for (u32 k = 0; k < WIDE; ++k) most = larger(most, v[k]);
    });
    most = over_block(most, Larger(), shared[0]);
    float sum = 0.0f;
    for_each(size, [&](u32 e, u32 i) {
        const float* v = x.again(e, i);
#pragma unroll
        for (u32 k = 0; k < WIDE; ++k) sum += exponential(v[k] - most);
    });
    return make_float2(most, over_block(sum, Add(), shared[1]));
}

extern "C" __global__ void softmax(const TypeX* x, TypeY* y, u32 size) {
    __shared__ float shared[2][32];
    u32 row = blockIdx.x * size;
    Part<TypeX> logits(x + row);
    float2 found = exponentials(logits, size, shared);
    for_each(size, [&](u32 e, u32 i) {
        const float* v = logits.again(e, i);
        float p[WIDE];
#pragma unroll
        for (u32 k = 0; k < WIDE; ++k) p[k] = exponential(v[k] - found.x) / found.y;
        put_computed<WIDE>(y + row, i, p);
    });
}

extern "C" __global__ void cross_entropy(
    const TypeX* x, const int* target, float* loss, float* lse, u32 size
) {
    __shared__ float shared[2][32];
    u32 row = blockIdx.x * size;
    Part<TypeX> logits(x + row);
    float2 e = exponentials(logits, size, shared);
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
    u32 i = (blockIdx.x * blockDim.x + threadIdx.x) * WIDE;
    if (i >= count) return;
    u32 row = i / size, wanted = row * size + target[row];
    float v[WIDE];
    get_several<WIDE>(x, i, v);
#pragma unroll
    for (u32 k = 0; k < WIDE; ++k) {
        float p = exponential(v[k] - lse[row]);
        v[k] = (p - (i + k == wanted ? 1.0f : 0.0f)) * dloss[row];
    }
    put_computed<WIDE>(dx, i, v);
}

extern "C" __global__ void layer_norm(
    const TypeX* x, const TypeG* gamma, const TypeG* beta, TypeY* y, float* mean, float* rstd,
    u32 size, float eps
) {
    __shared__ float shared[2][32];
    u32 row = blockIdx.x * size;
    Part<TypeX> part(x + row);
    float sum = 0.0f;
    for_each(size, [&](u32 e, u32 i) {
        const float* v = part.first(e, i);
#pragma unroll
        for (u32 k = 0; k < WIDE; ++k) sum += v[k];
    });
    float m = over_block(sum, Add(), shared[0]) / (float)size;
    float squares = 0.0f;
    for_each(size, [&](u32 e, u32 i) {
        const float* v = part.again(e, i);
#pragma unroll
        for (u32 k = 0; k < WIDE; ++k) squares = fmaf(v[k] - m, v[k] - m, squares);
    });
    float r = 1.0f / sqrtf(over_block(squares, Add(), shared[1]) / (float)size + eps);
    for_each(size, [&](u32 e, u32 i) {
        const float* v = part.again(e, i);
        float scale[WIDE], shift[WIDE], to[WIDE];
        get_several<WIDE>(gamma, i, scale);
        get_several<WIDE>(beta, i, shift);
#pragma unroll
        for (u32 k = 0; k < WIDE; ++k) to[k] = fmaf((v[k] - m) * r, scale[k], shift[k]);
        put_computed<WIDE>(y + row, i, to);
    });
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
