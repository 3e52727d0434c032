// What generated chains call: one function for each operation on one element.
#pragma once
#include "base.cuh"
#include "math.cuh"
#include "philox.cuh"

__device__ inline float chain_neg(float x) { return -x; }
__device__ inline float chain_abs(float x) { return fabsf(x); }
__device__ inline float chain_exp(float x) { return exponential(x); }
__device__ inline float chain_log(float x) { return logarithm(x); }
__device__ inline float chain_sqrt(float x) { return sqrtf(x); }
__device__ inline float chain_rsqrt(float x) { return 1.0f / sqrtf(x); }
__device__ inline float chain_recip(float x) { return 1.0f / x; }
__device__ inline float chain_tanh(float x) { return hyperbolic_tangent(x); }
__device__ inline float chain_sigmoid(float x) { return sigmoid(x); }
__device__ inline float chain_relu(float x) { return larger(x, 0.0f); }
__device__ inline float chain_step(float x) { return x > 0.0f ? 1.0f : 0.0f; }
__device__ inline float chain_gelu(float x) { return gelu(x); }
__device__ inline float chain_gelu_grad(float x) { return gelu_gradient(x); }
__device__ inline float chain_is_finite(float x) { return is_finite(x) ? 1.0f : 0.0f; }
__device__ inline float chain_square(float x) { return x * x; }
__device__ inline float chain_sign(float x) { return sign(x); }

__device__ inline float chain_add(float a, float b) { return a + b; }
__device__ inline float chain_sub(float a, float b) { return a - b; }
__device__ inline float chain_mul(float a, float b) { return a * b; }
__device__ inline float chain_div(float a, float b) { return a / b; }
__device__ inline float chain_max(float a, float b) { return larger(a, b); }
__device__ inline float chain_min(float a, float b) { return smaller(a, b); }
__device__ inline float chain_greater(float a, float b) { return a > b ? 1.0f : 0.0f; }
__device__ inline float chain_greater_equal(float a, float b) { return a >= b ? 1.0f : 0.0f; }
__device__ inline float chain_equal(float a, float b) { return a == b ? 1.0f : 0.0f; }
