// Attention by heads, a query or a key to a block: simple, and exact in f32. Scores of a block lie
// in shared memory.
#include "base.cuh"
#include "block.cuh"
#include "math.cuh"

// Where heads lie: elements between neighbours in time of q, k and v, and of all else.
struct Heads {
    u32 heads, time, dim, stride, causal;
    float scale;
    // Of q, k or v, and their gradients.
    __device__ u32 at(u32 b, u32 h, u32 t) const { return (b * time + t) * stride + h * dim; }
    // Of the result and its gradient.
    __device__ u32 result(u32 b, u32 h, u32 t) const { return ((b * time + t) * heads + h) * dim; }
    __device__ u32 row(u32 b, u32 h, u32 t) const { return (b * heads + h) * time + t; }
};

template <class A, class B>
__device__ inline float dot(const A* a, const B* b, u32 n) {
    float sum = 0.0f;
    for (u32 d = 0; d < n; ++d) sum = fmaf(widened(a[d]), widened(b[d]), sum);
    return sum;
}

extern __shared__ float scores[];

extern "C" __global__ void attention(
    const TypeX* q, const TypeX* k, const TypeX* v, TypeY* out, float* lse, const Heads s
) {
    __shared__ float shared[32];
    u32 t = blockIdx.x, h = blockIdx.y, b = blockIdx.z, seen = s.causal ? t + 1 : s.time;
    float most = -INFINITE;
    for (u32 i = threadIdx.x; i < seen; i += blockDim.x) {
        scores[i] = dot(q + s.at(b, h, t), k + s.at(b, h, i), s.dim) * s.scale;
        most = larger(most, scores[i]);
    }
    most = over_block(most, Larger(), shared);
    float sum = 0.0f;
    for (u32 i = threadIdx.x; i < seen; i += blockDim.x) {
        scores[i] = exponential(scores[i] - most);
        sum += scores[i];
    }
    sum = over_block(sum, Add(), shared);
    __syncthreads();
    for (u32 d = threadIdx.x; d < s.dim; d += blockDim.x) {
        float result = 0.0f;
        for (u32 i = 0; i < seen; ++i) result = fmaf(scores[i], get(v, s.at(b, h, i) + d), result);
        put(out, s.result(b, h, t) + d, result / sum);
    }
    if (threadIdx.x == 0) lse[s.row(b, h, t)] = most + logarithm(sum);
}

// The sum of dout · out of each row.
extern "C" __global__ void attention_delta(
    const TypeY* out, const TypeY* dout, float* delta, u32 rows, const Heads s
) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= rows) return;
    u32 at = s.result(i / s.time / s.heads, i / s.time % s.heads, i % s.time);
    delta[i] = dot(out + at, dout + at, s.dim);
}

extern "C" __global__ void attention_grad_queries(
    const TypeX* q, const TypeX* k, const TypeX* v, const TypeY* dout, const float* lse,
    const float* delta, TypeX* dq, const Heads s
) {
    u32 t = blockIdx.x, h = blockIdx.y, b = blockIdx.z, seen = s.causal ? t + 1 : s.time;
    u32 row = s.row(b, h, t);
    for (u32 i = threadIdx.x; i < seen; i += blockDim.x) {
        float score = dot(q + s.at(b, h, t), k + s.at(b, h, i), s.dim) * s.scale;
        float dp = dot(dout + s.result(b, h, t), v + s.at(b, h, i), s.dim);
        scores[i] = exponential(score - lse[row]) * (dp - delta[row]) * s.scale;
    }
    __syncthreads();
    for (u32 d = threadIdx.x; d < s.dim; d += blockDim.x) {
        float result = 0.0f;
        for (u32 i = 0; i < seen; ++i) result = fmaf(scores[i], get(k, s.at(b, h, i) + d), result);
        put(dq, s.at(b, h, t) + d, result);
    }
}

extern "C" __global__ void attention_grad_keys(
    const TypeX* q, const TypeX* k, const TypeX* v, const TypeY* dout, const float* lse,
    const float* delta, TypeX* dk, TypeX* dv, const Heads s
) {
    float* weights = scores + s.time;
    u32 i = blockIdx.x, h = blockIdx.y, b = blockIdx.z, first = s.causal ? i : 0;
    for (u32 t = first + threadIdx.x; t < s.time; t += blockDim.x) {
        u32 row = s.row(b, h, t);
        float score = dot(q + s.at(b, h, t), k + s.at(b, h, i), s.dim) * s.scale;
        float dp = dot(dout + s.result(b, h, t), v + s.at(b, h, i), s.dim);
        weights[t] = exponential(score - lse[row]);
        scores[t] = weights[t] * (dp - delta[row]) * s.scale;
    }
    __syncthreads();
    for (u32 d = threadIdx.x; d < s.dim; d += blockDim.x) {
        float of_key = 0.0f, of_value = 0.0f;
        for (u32 t = first; t < s.time; ++t) {
            of_key = fmaf(scores[t], get(q, s.at(b, h, t) + d), of_key);
            of_value = fmaf(weights[t], get(dout, s.result(b, h, t) + d), of_value);
        }
        put(dk, s.at(b, h, i) + d, of_key);
        put(dv, s.at(b, h, i) + d, of_value);
    }
}
