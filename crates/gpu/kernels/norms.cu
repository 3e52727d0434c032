// Norms whose result a chain may go on with.
#include "after.cuh"
#include "block.cuh"

// dx = rstd (dy gamma - (sum of dy gamma + x^ sum of dy gamma x^) / size), with x^ = (x - mean)
// rstd.
extern "C" __global__ void layer_norm_grad(
    const TypeX* x, const TypeG* gamma, const float* mean, const float* rstd, const TypeD* dy,
    const Chain chain, u32 size
) {
    __shared__ float shared[32];
    u32 row = blockIdx.x * size;
    float m = mean[blockIdx.x], r = rstd[blockIdx.x];
    float sum = 0.0f, dot = 0.0f;
    for (u32 i = threadIdx.x; i < size; i += blockDim.x) {
        float scaled = get(dy, row + i) * get(gamma, i);
        sum += scaled;
        dot = fmaf(scaled, (get(x, row + i) - m) * r, dot);
    }
    sum = over_block(sum, Add(), shared);
    dot = over_block(dot, Add(), shared);
    for (u32 i = threadIdx.x; i < size; i += blockDim.x) {
        float scaled = get(dy, row + i) * get(gamma, i), normal = (get(x, row + i) - m) * r;
        chain(row + i, r * (scaled - fmaf(normal, dot, sum) / (float)size));
    }
}

extern "C" __global__ void batch_norm(
    const TypeX* x, const TypeG* gamma, const TypeG* beta, const float* mean, const float* var,
    float* rstd, const Chain chain, u32 count, u32 width, float eps
) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    u32 c = i % width;
    float r = 1.0f / sqrtf(var[c] + eps);
    chain(i, fmaf((get(x, i) - mean[c]) * r, get(gamma, c), get(beta, c)));
    if (i < width) rstd[c] = r;
}
