// Storage types, and loads and stores that widen and round. Sizes are below 2^31, so that 32 bits
// count elements.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

struct bf16 {
    u16 code;
};
struct f16 {
    u16 code;
};
struct e4m3 {
    u8 code;
};
struct e5m2 {
    u8 code;
};

#define NOT_A_NUMBER __uint_as_float(0x7fc00000)
#define INFINITE __uint_as_float(0x7f800000)

__device__ inline bool is_nan(float x) { return x != x; }
__device__ inline bool is_finite(float x) { return (__float_as_uint(x) & 0x7fffffff) < 0x7f800000; }

// The larger and the smaller; NaN if either is.
__device__ inline float larger(float a, float b) { return a > b || is_nan(a) ? a : b; }
__device__ inline float smaller(float a, float b) { return a < b || is_nan(a) ? a : b; }

#include "formats.cuh"

__device__ inline float widened(float x) { return x; }
__device__ inline float widened(bf16 x) { return __uint_as_float((u32)x.code << 16); }
__device__ inline float widened(f16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.code));
    return y;
}
__device__ inline float widened(e4m3 x) { return narrow_value<E4M3>(x.code); }
__device__ inline float widened(e5m2 x) { return narrow_value<E5M2>(x.code); }

// To nearest even.
template <class T>
__device__ inline T rounded(float x);
template <>
__device__ inline float rounded<float>(float x) {
    return x;
}
template <>
__device__ inline bf16 rounded<bf16>(float x) {
    u16 code;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(code) : "f"(x));
    // Which keeps no NaN's bits.
    return bf16{is_nan(x) ? (u16)(__float_as_uint(x) >> 16 | 0x40) : code};
}
template <>
__device__ inline f16 rounded<f16>(float x) {
    f16 y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.code) : "f"(x));
    return y;
}
template <>
__device__ inline e4m3 rounded<e4m3>(float x) {
    return e4m3{(u8)narrow_nearest<E4M3>(x, false)};
}
template <>
__device__ inline e5m2 rounded<e5m2>(float x) {
    return e5m2{(u8)narrow_nearest<E5M2>(x, false)};
}

// The value that a type keeps of a number.
template <class T>
__device__ inline float stored(float x) {
    return widened(rounded<T>(x));
}

template <class T>
__device__ inline float get(const T* p, u32 i) {
    return widened(p[i]);
}
template <class T>
__device__ inline void put(T* p, u32 i, float x) {
    p[i] = rounded<T>(x);
}

// Of shared memory, for instructions that take no other.
__device__ inline u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }

// `N` neighbours in one access; `i` is a multiple of N, and p is aligned to as many.
template <class T, int N>
struct alignas(N * sizeof(T)) Several {
    T of[N];
};
template <int N, class T>
__device__ inline void get_several(const T* p, u32 i, float* x) {
    Several<T, N> s = *(const Several<T, N>*)(p + i);
#pragma unroll
    for (int k = 0; k < N; ++k) x[k] = widened(s.of[k]);
}
template <int N, class T>
__device__ inline void put_several(T* p, u32 i, const float* x) {
    Several<T, N> s;
#pragma unroll
    for (int k = 0; k < N; ++k) s.of[k] = rounded<T>(x[k]);
    *(Several<T, N>*)(p + i) = s;
}
// Two bf16 at a time. Every NaN becomes 0x7fff.
template <int N>
__device__ inline Several<u32, N / 2> rounded_pairs(const float* x) {
    Several<u32, N / 2> pairs;
#pragma unroll
    for (int k = 0; k < N; k += 2)
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pairs.of[k / 2]) : "f"(x[k + 1]), "f"(x[k]));
    return pairs;
}
// Those that are NaN one by one.
template <int N>
__device__ inline void put_several(bf16* p, u32 i, const float* x) {
    if constexpr (N % 2 == 1) {
#pragma unroll
        for (int k = 0; k < N; ++k) put(p, i + k, x[k]);
    } else {
        Several<u32, N / 2> pairs = rounded_pairs<N>(x);
        bool any = false;
#pragma unroll
        for (int k = 0; k < N; ++k) any |= is_nan(x[k]);
        if (any) {
#pragma unroll
            for (int k = 0; k < N; k += 2)
                pairs.of[k / 2] =
                    rounded<bf16>(x[k]).code | (u32)rounded<bf16>(x[k + 1]).code << 16;
        }
        *(Several<u32, N / 2>*)(p + i) = pairs;
    }
}

// The same of what f32 arithmetic or Tensor Cores made, of which each NaN is 0x7fffffff (PTX ISA,
// "Floating Point Instructions"): in bf16 that is 0x7fff too.
template <int N, class T>
__device__ inline void put_computed(T* p, u32 i, const float* x) {
    put_several<N>(p, i, x);
}
template <int N>
__device__ inline void put_computed(bf16* p, u32 i, const float* x) {
    if constexpr (N % 2 == 1)
        put_several<N>(p, i, x);
    else
        *(Several<u32, N / 2>*)(p + i) = rounded_pairs<N>(x);
}
