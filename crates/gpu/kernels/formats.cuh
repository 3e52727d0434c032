// Conversions between f32 and codes of 8 and 4 bits in integer arithmetic: the same on every
// architecture, and the same bits as those of halfstep-float.
#pragma once

// Mantissa bits, the f32 exponent field of the smallest normal number, the largest code, and the
// codes of what is beyond it and of NaN.
struct E4M3 {
    enum : u32 {
        MANTISSA = 3,
        MIN_FIELD = 121,
        MAX = 0x7e,
        OVER = 0x7f,
        NAN_CODE = 0x7f,
        BITS = 8
    };
};
struct E5M2 {
    enum : u32 {
        MANTISSA = 2,
        MIN_FIELD = 113,
        MAX = 0x7b,
        OVER = 0x7c,
        NAN_CODE = 0x7e,
        BITS = 8
    };
};
struct E2M1 {
    enum : u32 { MANTISSA = 1, MIN_FIELD = 127, MAX = 0x7, OVER = 0x7, NAN_CODE = 0x7, BITS = 4 };
};

template <class F>
__device__ inline u32 narrow_finish(u32 bits, u32 code, bool saturate) {
    u32 sign = bits >> (32 - F::BITS) & 1u << (F::BITS - 1);
    u32 ranged = code <= F::MAX ? code : saturate ? F::MAX : F::OVER;
    return sign | ((bits & 0x7fffffff) > 0x7f800000 ? (u32)F::NAN_CODE : ranged);
}

// The code of x to nearest even.
template <class F>
__device__ inline u32 narrow_nearest(float x, bool saturate) {
    const u32 dropped = 23 - F::MANTISSA;
    u32 bits = __float_as_uint(x), magnitude = bits & 0x7fffffff;
    u32 odd = magnitude >> dropped & 1;
    u32 normal = magnitude - (F::MIN_FIELD - 1 << 23) + ((1u << dropped - 1) - 1 + odd) >> dropped;
    // A sum with a number whose ulp is the format's smallest step rounds subnormal results.
    const u32 anchor = F::MIN_FIELD + dropped << 23;
    u32 subnormal =
        __float_as_uint(__fadd_rn(__uint_as_float(magnitude), __uint_as_float(anchor))) - anchor;
    return narrow_finish<F>(bits, magnitude < F::MIN_FIELD << 23 ? subnormal : normal, saturate);
}

// The code of x, rounded away from zero where `random` is below the dropped fraction.
template <class F>
__device__ inline u32 narrow_stochastic(float x, u32 random, bool saturate) {
    const u32 dropped = 23 - F::MANTISSA;
    u32 bits = __float_as_uint(x), magnitude = bits & 0x7fffffff;
    u32 field = magnitude >> 23;
    u32 significand = magnitude & 0x7fffff | (field > 0 ? 1u << 23 : 0);
    field = field > 0 ? field : 1;
    u32 base = field > F::MIN_FIELD ? field : F::MIN_FIELD;
    u32 shift = base - field + dropped;
    u32 whole = shift < 32 ? significand >> shift : 0;
    // 32 bits behind the point.
    u32 fraction = shift < 32   ? significand << (32 - shift)
                   : shift < 64 ? significand >> (shift - 32)
                                : 0;
    u32 code = (base - F::MIN_FIELD << F::MANTISSA) + whole + (random < fraction ? 1 : 0);
    return narrow_finish<F>(bits, code, saturate);
}

// The value of a code; exact.
template <class F>
__device__ inline float narrow_value(u32 code) {
    const u32 dropped = 23 - F::MANTISSA;
    u32 sign = (code >> (F::BITS - 1) & 1) << 31, magnitude = code & (1u << (F::BITS - 1)) - 1;
    u32 shifted = magnitude << dropped;
    u32 normal = shifted + (F::MIN_FIELD - 1 << 23);
    const u32 one = F::MIN_FIELD << 23;
    u32 subnormal =
        __float_as_uint(__fsub_rn(__uint_as_float(shifted + one), __uint_as_float(one)));
    u32 finite = magnitude >> F::MANTISSA == 0 ? subnormal : normal;
    u32 beyond = F::OVER != F::NAN_CODE && magnitude == F::OVER ? 0x7f800000 : 0x7fc00000;
    return __uint_as_float(sign | (magnitude > F::MAX ? beyond : finite));
}

// The value of the code of a number that was scaled; NaN for what is not finite.
template <class F>
__device__ inline float coded(float x, bool saturate) {
    return is_finite(x) ? narrow_value<F>(narrow_nearest<F>(x, saturate)) : NOT_A_NUMBER;
}
template <class F>
__device__ inline float coded(float x, u32 random, bool saturate) {
    return is_finite(x) ? narrow_value<F>(narrow_stochastic<F>(x, random, saturate)) : NOT_A_NUMBER;
}
