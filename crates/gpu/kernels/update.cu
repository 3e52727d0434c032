// The update: the norm of all gradients, and a step of the optimiser for many tensors in one
// launch.
#include "base.cuh"

// Elements of a tensor that a block works on.
#define PART 4096

struct Norm {
    const TypeX* x;
    u32 count, first;
};
struct Norms {
    u32 tensors, base;
    Norm of[200];
};

// The tensor that block `b` works on: the last whose first block is not behind it.
template <class T>
__device__ inline u32 tensor_of(const T& table, u32 b) {
    u32 low = 0, high = table.tensors - 1;
    while (low < high) {
        u32 middle = (low + high + 1) / 2;
        if (table.of[middle].first <= b)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

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

// A tensor that is trained, with its moments: where they are, and where they go, which may be the
// same.
struct Trained {
    const float *p, *m, *v;
    const TypeX* grad;
    float *new_p, *new_m, *new_v;
    u32 count, first;
};
struct Table {
    u32 tensors, unused;
    Trained of[50];
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

// Copies what another place than its own is to hold, where nothing is to change.
__device__ inline void stage(const float* from, float* to, u32 i) {
    if (from != to) to[i] = from[i];
}

struct AdamW {
    double beta1, beta2, eps, weight_decay;
};

extern "C" __global__ void __launch_bounds__(256) adamw(
    const float* lr, const float* grad_scale, const float* step, const float* commit,
    const AdamW spec, const __grid_constant__ Table table
) {
    __shared__ float shared[3];
    const Trained& t = table.of[tensor_of(table, blockIdx.x)];
    u32 first = (blockIdx.x - t.first) * PART, end = min(first + PART, t.count);
    if (*commit == 0.0f) {
        for (u32 i = first + threadIdx.x; i < end; i += 256) {
            stage(t.p, t.new_p, i);
            stage(t.m, t.new_m, i);
            stage(t.v, t.new_v, i);
        }
        return;
    }
    // f64 once for the block, and f32 for its elements.
    if (threadIdx.x == 0) {
        double rate = *lr;
        u32 n = (u32)*step;
        shared[0] = (float)(1.0 - rate * spec.weight_decay);
        shared[1] = (float)(rate / (1.0 - power(spec.beta1, n)));
        shared[2] = (float)(1.0 / sqrt(1.0 - power(spec.beta2, n)));
    }
    __syncthreads();
    float keep = shared[0], size = shared[1], root = shared[2], scale = *grad_scale;
    float beta1 = (float)spec.beta1, rest1 = (float)(1.0 - spec.beta1);
    float beta2 = (float)spec.beta2, rest2 = (float)(1.0 - spec.beta2), eps = (float)spec.eps;
    for (u32 i = first + threadIdx.x; i < end; i += 256) {
        float g = get(t.grad, i) * scale;
        float m = fmaf(rest1, g, beta1 * t.m[i]), v = fmaf(rest2 * g, g, beta2 * t.v[i]);
        t.new_m[i] = m;
        t.new_v[i] = v;
        t.new_p[i] = t.p[i] * keep - size * m / fmaf(sqrtf(v), root, eps);
    }
}

struct Sgd {
    float momentum, weight_decay;
    u32 nesterov;
};

extern "C" __global__ void __launch_bounds__(256) sgd(
    const float* lr, const float* grad_scale, const float* commit, const Sgd spec,
    const __grid_constant__ Table table
) {
    const Trained& t = table.of[tensor_of(table, blockIdx.x)];
    u32 first = (blockIdx.x - t.first) * PART, end = min(first + PART, t.count);
    if (*commit == 0.0f) {
        for (u32 i = first + threadIdx.x; i < end; i += 256) {
            stage(t.p, t.new_p, i);
            stage(t.m, t.new_m, i);
        }
        return;
    }
    float rate = *lr, scale = *grad_scale;
    for (u32 i = first + threadIdx.x; i < end; i += 256) {
        float p = t.p[i], g = fmaf(spec.weight_decay, p, get(t.grad, i) * scale);
        float m = fmaf(spec.momentum, t.m[i], g);
        t.new_m[i] = m;
        t.new_p[i] = fmaf(-rate, spec.nesterov ? fmaf(spec.momentum, m, g) : m, p);
    }
}
