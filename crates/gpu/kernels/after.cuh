// What becomes of a result: a generated chain of operations behind it, or else it is stored.
#pragma once
#include "elementwise.cuh"

#ifndef CHAINED
struct Chain {
    TypeY* y;
    // Of element `i`, not yet rounded.
    __device__ void operator()(u32 i, float x) const { put(y, i, x); }
#ifdef WIDE
    // Of it and the neighbours behind it.
    __device__ void operator()(u32 i, const float* x) const { put_several<WIDE>(y, i, x); }
#endif
};
#endif
