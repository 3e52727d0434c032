// Philox4x32-10 (Salmon et al. 2011), and the draws of a step: the same words as those of
// halfstep-float.
#pragma once

struct Words {
    u32 of[4];
};

__device__ inline Words philox(u32 k0, u32 k1, u32 c0, u32 c1, u32 c2, u32 c3) {
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        u32 high0 = __umulhi(0xd2511f53u, c0), low0 = 0xd2511f53u * c0;
        u32 high1 = __umulhi(0xcd9e8d57u, c2), low1 = 0xcd9e8d57u * c2;
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    return Words{{c0, c1, c2, c3}};
}

// A step's key: the seed, low word first, the attempt, and the number of the first sample.
__device__ inline u32 draw(const int* key, u32 number, u64 element) {
    u64 block = element / 4;
    Words w = philox(key[0], key[1], number, key[2], (u32)(block >> 32), (u32)block);
    u32 at = element % 4;
    return at == 0 ? w.of[0] : at == 1 ? w.of[1] : at == 2 ? w.of[2] : w.of[3];
}

// The number of the draw of element i of a tensor whose elements are rounded.
__device__ inline u64 rounding_draw(const int* key, u32 i) { return ((u64)(u32)key[3] << 34) + i; }

// Whether element i of samples of `per_sample` elements is dropped.
__device__ inline bool dropped(const int* key, u32 id, u32 threshold, u32 per_sample, u32 i) {
    u32 sample = i / per_sample, element = i % per_sample;
    Words w = philox(key[0], key[1], id, key[2], (u32)key[3] + sample, element / 4);
    u32 at = element % 4;
    return (at == 0 ? w.of[0] : at == 1 ? w.of[1] : at == 2 ? w.of[2] : w.of[3]) < threshold;
}
