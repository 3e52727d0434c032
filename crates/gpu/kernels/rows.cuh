// Work on rows, one to a block: each thread has WIDE neighbours at up to EACH places of it. They
// stay in registers from one pass to the next; of rows that are too long for that, where EACH is 0,
// they are read again.
#pragma once
#include "base.cuh"

#ifndef EACH
#define EACH 0
#endif

// f(e, i) for the thread's e-th place, whose first element is i.
template <class F>
__device__ inline void for_each(u32 size, F f) {
#if EACH > 0
#pragma unroll
    for (u32 e = 0; e < EACH; ++e) {
        u32 i = (e * blockDim.x + threadIdx.x) * WIDE;
        if (i < size) f(e, i);
    }
#else
    for (u32 i = threadIdx.x * WIDE; i < size; i += blockDim.x * WIDE) f(0, i);
#endif
}

// A thread's part of a row.
template <class T>
struct Part {
    const T* row;
    float of[EACH > 0 ? EACH : 1][WIDE];
    __device__ Part(const T* row) : row(row) {}
    // What lies at a place, the first time and later.
    __device__ const float* first(u32 e, u32 i) {
        get_several<WIDE>(row, i, of[e]);
        return of[e];
    }
    __device__ const float* again(u32 e, u32 i) {
        if (EACH == 0) get_several<WIDE>(row, i, of[e]);
        return of[e];
    }
};
