// A step of an optimiser for many tensors in one launch. WEIGHT and MOMENTS say how state is kept.
#include "base.cuh"
#include "block.cuh"
#include "kept.cuh"
#include "table.cuh"

// A tensor that is trained, with its moments; `draws` is the number of its draws, and those of the
// moments follow.
struct Trained {
    Kept p, m, v;
    const TypeX* grad;
    u32 count, draws, unused, first;
};
struct Table {
    u32 tensors, unused;
    Trained of[30];
};

// beta^n by squaring.
__device__ inline double power(double beta, u32 n) {
    double y = 1.0;
    for (; n > 0; n /= 2) {
        if (n % 2 == 1) y *= beta;
        beta *= beta;
    }
    return y;
}

struct AdamW {
    double beta1, beta2, eps, weight_decay;
};

extern "C" __global__ void __launch_bounds__(256) adamw(
    const float* lr, const float* grad_scale, const float* step, const float* commit,
    const int* key, const AdamW spec, const __grid_constant__ Table table
) {
    __shared__ float factors[3], shared[32];
    const Trained& t = table.of[tensor_of(table, blockIdx.x)];
    u32 first = (blockIdx.x - t.first) * PART, end = min(first + PART, t.count);
    if (*commit == 0.0f) {
        for (u32 i = first + threadIdx.x; i < end; i += 256) {
            stage<WEIGHT>(t.p, i);
            stage<MOMENTS>(t.m, i);
            stage<MOMENTS>(t.v, i);
        }
        return;
    }
    // f64 once for the block, and f32 for its elements.
    if (threadIdx.x == 0) {
        double rate = *lr;
        u32 n = (u32)*step;
        factors[0] = (float)(1.0 - rate * spec.weight_decay);
        factors[1] = (float)(rate / (1.0 - power(spec.beta1, n)));
        factors[2] = (float)(1.0 / sqrt(1.0 - power(spec.beta2, n)));
    }
    __syncthreads();
    float keep = factors[0], size = factors[1], root = factors[2], scale = *grad_scale;
    float beta1 = (float)spec.beta1, rest1 = (float)(1.0 - spec.beta1);
    float beta2 = (float)spec.beta2, rest2 = (float)(1.0 - spec.beta2), eps = (float)spec.eps;
    // Whole blocks of threads: what is kept in blocks of 256 has a largest magnitude.
    for (u32 start = first; start < end; start += 256) {
        u32 i = start + threadIdx.x;
        bool mine = i < end;
        float p = 0.0f, m = 0.0f, v = 0.0f;
        if (mine) {
            float g = get(t.grad, i) * scale;
            m = fmaf(rest1, g, beta1 * value<MOMENTS>(t.m, i, SIGNED));
            v = fmaf(rest2 * g, g, beta2 * value<MOMENTS>(t.v, i, UNSIGNED));
            p = value<WEIGHT>(t.p, i, SIGNED) * keep - size * m / fmaf(sqrtf(v), root, eps);
        }
        keep_value<MOMENTS>(t.m, i, mine, m, key, t.draws + 1, SIGNED, shared);
        keep_value<MOMENTS>(t.v, i, mine, v, key, t.draws + 2, UNSIGNED, shared);
        keep_value<WEIGHT>(t.p, i, mine, p, key, t.draws, SIGNED, shared);
    }
}

struct Sgd {
    float momentum, weight_decay;
    u32 nesterov;
};

extern "C" __global__ void __launch_bounds__(256) sgd(
    const float* lr, const float* grad_scale, const float* commit, const int* key, const Sgd spec,
    const __grid_constant__ Table table
) {
    __shared__ float shared[32];
    const Trained& t = table.of[tensor_of(table, blockIdx.x)];
    u32 first = (blockIdx.x - t.first) * PART, end = min(first + PART, t.count);
    if (*commit == 0.0f) {
        for (u32 i = first + threadIdx.x; i < end; i += 256) {
            stage<WEIGHT>(t.p, i);
            stage<MOMENTS>(t.m, i);
        }
        return;
    }
    float rate = *lr, scale = *grad_scale;
    for (u32 start = first; start < end; start += 256) {
        u32 i = start + threadIdx.x;
        bool mine = i < end;
        float p = 0.0f, m = 0.0f;
        if (mine) {
            p = value<WEIGHT>(t.p, i, SIGNED);
            float g = fmaf(spec.weight_decay, p, get(t.grad, i) * scale);
            m = fmaf(spec.momentum, value<MOMENTS>(t.m, i, SIGNED), g);
            p = fmaf(-rate, spec.nesterov ? fmaf(spec.momentum, m, g) : m, p);
        }
        keep_value<MOMENTS>(t.m, i, mine, m, key, t.draws + 1, SIGNED, shared);
        keep_value<WEIGHT>(t.p, i, mine, p, key, t.draws, SIGNED, shared);
    }
}
