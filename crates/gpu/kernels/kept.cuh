// State of an update as it is kept: widened to f32, and rounded when it is put back. SIGNED_VALUES
// and UNSIGNED_VALUES are the values of the codes of the dynamic maps, in front of this text.
#pragma once
#include "base.cuh"
#include "block.cuh"
#include "philox.cuh"

// f32; bf16 to nearest even; bf16 rounded up or down by a draw; bf16, and in a second tensor what
// that left over; codes of a dynamic map, and in a second tensor the largest magnitude of each 256.
enum Form { KEPT_F32, KEPT_BF16, KEPT_STOCHASTIC, KEPT_COMPENSATED, KEPT_BLOCKS };
enum Map { SIGNED, UNSIGNED };

// A tensor of state: where it is, and where it goes, which may be the same.
struct Kept {
    const void *from, *second_from;
    void *to, *second_to;
};

// Elements that share a largest magnitude: as many as a block has threads.
#define DYNAMIC_BLOCK 256

// bf16 as one of the narrow formats.
struct BF16 {
    enum : u32 {
        MANTISSA = 7,
        MIN_FIELD = 1,
        MAX = 0x7f7f,
        OVER = 0x7f80,
        NAN_CODE = 0x7fc0,
        BITS = 16
    };
};

template <int F>
__device__ inline float value(const Kept& t, u32 i, Map map) {
    if (F == KEPT_F32) return ((const float*)t.from)[i];
    if (F == KEPT_BLOCKS) {
        u8 code = ((const u8*)t.from)[i];
        float of_one = map == SIGNED ? SIGNED_VALUES[code] : UNSIGNED_VALUES[code];
        return of_one * ((const float*)t.second_from)[i / DYNAMIC_BLOCK];
    }
    float x = get((const bf16*)t.from, i);
    return F == KEPT_COMPENSATED ? x + get((const bf16*)t.second_from, i) : x;
}

// The code of the value nearest to x: of two as near the lower level.
__device__ inline u8 nearest_code(float x, Map map) {
    const float* levels = map == SIGNED ? SIGNED_VALUES + 127 : UNSIGNED_VALUES;
    bool negative = map == SIGNED && (int)__float_as_uint(x) < 0;
    float magnitude = map == SIGNED ? fabsf(x) : x > 0.0f ? x : 0.0f;
    // The levels at and below which x may lie.
    u32 low = 0, high = map == SIGNED ? 128 - (negative ? 1 : 0) : 255;
    while (low < high) {
        u32 middle = (low + high) / 2;
        if (magnitude <= (levels[middle] + levels[middle + 1]) / 2.0f)
            high = middle;
        else
            low = middle + 1;
    }
    return map == UNSIGNED ? low : negative ? 127 - low : 127 + low;
}

// Puts back the value of element i, where there is one; all threads of the block call it.
template <int F>
__device__ inline void keep_value(
    const Kept& t, u32 i, bool mine, float x, const int* key, u32 draws, Map map, float* shared
) {
    if (F == KEPT_BLOCKS) {
        // What an earlier call left there has been read.
        __syncthreads();
        float most = over_block(fabsf(x), Larger(), shared);
        if (!mine) return;
        ((u8*)t.to)[i] = nearest_code(x / (most == 0.0f ? 1.0f : most), map);
        if (threadIdx.x == 0) ((float*)t.second_to)[i / DYNAMIC_BLOCK] = most;
        return;
    }
    if (!mine) return;
    if (F == KEPT_F32) ((float*)t.to)[i] = x;
    if (F == KEPT_BF16 || F == KEPT_COMPENSATED) put((bf16*)t.to, i, x);
    if (F == KEPT_COMPENSATED) put((bf16*)t.second_to, i, x - stored<bf16>(x));
    if (F == KEPT_STOCHASTIC)
        ((u16*)t.to)[i] = (u16)narrow_stochastic<BF16>(x, draw(key, draws, i), false);
}

template <class T>
__device__ inline void stage_element(const void* from, void* to, u32 i) {
    if (from != to) ((T*)to)[i] = ((const T*)from)[i];
}

// Copies an element to where it goes, where nothing is to change.
template <int F>
__device__ inline void stage(const Kept& t, u32 i) {
    if (F == KEPT_F32)
        stage_element<u32>(t.from, t.to, i);
    else if (F == KEPT_BLOCKS)
        stage_element<u8>(t.from, t.to, i);
    else
        stage_element<u16>(t.from, t.to, i);
    if (F == KEPT_COMPENSATED) stage_element<u16>(t.second_from, t.second_to, i);
    if (F == KEPT_BLOCKS && i % DYNAMIC_BLOCK == 0)
        stage_element<u32>(t.second_from, t.second_to, i / DYNAMIC_BLOCK);
}
