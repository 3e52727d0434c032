// Functions of one number in f32, by the polynomials of the CPU's kernels, whose tests have the
// bounds stated.
#pragma once

// The smaller of x and `bound`; NaN if x is NaN.
__device__ inline float at_most(float x, float bound) { return bound < x ? bound : x; }
__device__ inline float at_least(float x, float bound) { return bound > x ? bound : x; }

// 2^n for -126 <= n <= 127.
__device__ inline float power_of_two(int n) { return __uint_as_float((u32)(n + 127) << 23); }

// Adding it rounds a small number to an integer, which the low bits of the sum then hold.
#define ROUND 12582912.0f
#define LOG2_E 1.44269504f

// exp(r) for |r| <= ln 2 / 2.
__device__ inline float exp_reduced(float r) {
    float p = 0.0013840458f;
    p = fmaf(p, r, 0.008369351f);
    p = fmaf(p, r, 0.0416680835f);
    p = fmaf(p, r, 0.166665152f);
    p = fmaf(p, r, 0.49999994f);
    return fmaf(p, r * r, r) + 1.0f;
}

// Within 2 ulp; overflows to infinity, underflows gradually to 0, NaN stays NaN.
__device__ inline float exponential(float x) {
    x = at_least(at_most(x, 89.0f), -105.0f);
    float shifted = fmaf(x, LOG2_E, ROUND), n = shifted - ROUND;
    int exponent = __float_as_int(shifted) - __float_as_int(ROUND);
    // ln 2 in two parts; n times the first is exact.
    float r = fmaf(n, 2.1219444e-4f, fmaf(n, -0.693359375f, x));
    int half = exponent >> 1;
    return exp_reduced(r) * power_of_two(half) * power_of_two(exponent - half);
}

// The same for x <= 88, flushed to zero below -87.
__device__ inline float exponential_normal(float x) {
    float inside = at_least(x, -87.0f);
    float shifted = fmaf(inside, LOG2_E, ROUND), n = shifted - ROUND;
    float r = fmaf(n, 2.1219444e-4f, fmaf(n, -0.693359375f, inside));
    float scale = __uint_as_float((__float_as_uint(shifted) << 23) + (127u << 23));
    // Of the factors what is a number, so that there is no branch around the polynomial.
    return exp_reduced(r) * (x < -87.0f ? 0.0f : scale);
}

// Within 2 ulp: -infinity at 0, NaN below, exact at 1, infinity at infinity.
__device__ inline float logarithm(float x) {
    bool small = x < 1.17549435e-38f;
    u32 bits = __float_as_uint(small ? x * 8388608.0f : x) - 0x3f3504f3;
    float k = (float)(((int)bits >> 23) + (small ? -23 : 0));
    float f = __uint_as_float((bits & 0x7fffff) + 0x3f3504f3) - 1.0f;
    float s = f / (2.0f + f), z = s * s, w = z * z;
    float even = w * fmaf(w, 0.24279079f, 0.40000972f);
    float odd = z * fmaf(w, 0.28498787f, 0.66666663f);
    float half = 0.5f * f * f;
    float correction = fmaf(s, half + (even + odd), k * 9.0580006e-6f);
    float y = fmaf(k, 0.69313812f, f - (half - correction));
    y = x == INFINITE ? x : y;
    y = x == 0.0f ? -INFINITE : y;
    return x >= 0.0f ? y : NOT_A_NUMBER;
}

// Within 2 ulp; odd.
__device__ inline float hyperbolic_tangent(float x) {
    float t = at_most(fabsf(x), 10.0f), z = t * t;
    float p = -0.005897972f;
    p = fmaf(p, z, 0.020798627f);
    p = fmaf(p, z, -0.053784717f);
    p = fmaf(p, z, 0.133319363f);
    p = fmaf(p, z, -0.333332986f);
    float near = fmaf(p * z, t, t);
    float far = 1.0f - 2.0f / (exponential_normal(2.0f * t) + 1.0f);
    return copysignf(t < 0.6f ? near : far, x);
}

// 1 / (1 + exp(-x)) within 4 ulp; 0 below -87.
__device__ inline float sigmoid(float x) {
    float e = exponential_normal(-fabsf(x));
    return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}

// exp(-z^2/2), and the normal distribution's tail beyond z >= 0 within (4 + z^2/2) 2^-23 of itself.
__device__ inline float normal_tail(float z, float& e) {
    z = at_most(z, 13.1f);
    float s = 1.0f / fmaf(0.3f, z, 1.0f);
    float p = -0.020624600f;
    p = fmaf(p, s, 0.112441137f);
    p = fmaf(p, s, -0.228225484f);
    p = fmaf(p, s, 0.191799551f);
    p = fmaf(p, s, -0.079435774f);
    p = fmaf(p, s, 0.096163474f);
    p = fmaf(p, s, 0.078387320f);
    p = fmaf(p, s, 0.110235929f);
    p = fmaf(p, s, 0.119571753f);
    p = fmaf(p, s, 0.119686693f);
    e = exponential_normal(-0.5f * z * z);
    return e * (p * s);
}

// x Phi(x) with the exact normal distribution, within (5 + x^2/2) 2^-23 of itself.
__device__ inline float gelu(float x) {
    float e, tail = normal_tail(fabsf(x), e);
    float y = x * (x < 0.0f ? tail : 1.0f - tail);
    // The limit at -infinity.
    return x < -13.1f ? -0.0f : y;
}

// Its derivative, within 8 2^-23.
__device__ inline float gelu_gradient(float x) {
    float e, tail = normal_tail(fabsf(x), e);
    float inside = at_least(at_most(x, 13.1f), -13.1f);
    return fmaf(inside * 0.39894228f, e, x < 0.0f ? tail : 1.0f - tail);
}

// 1 or -1 by sign; zeros and NaN stay.
__device__ inline float sign(float x) { return is_nan(x) || x == 0.0f ? x : copysignf(1.0f, x); }
