// What becomes of WIDE neighbouring results: a generated chain of operations behind them, or else
// they are stored. What it reads of elements i and those behind it is loaded first, so that loads
// of many can be on their way before the results of the first are computed.
#pragma once
#include "elementwise.cuh"

#ifndef CHAINED
struct Chain {
    TypeY* y;
    struct Elements {
        float y[WIDE];
    };
    __device__ void load(u32 i, Elements& e) const {}
    __device__ void compute(u32 i, Elements& e, const float* x) const {
#pragma unroll
        for (u32 k = 0; k < WIDE; ++k) e.y[k] = x[k];
    }
    __device__ void store(u32 i, const Elements& e) const { put_computed<WIDE>(y, i, e.y); }
};
#endif

// Does all of it.
__device__ inline void finish(const Chain& chain, u32 i, const float* x) {
    Chain::Elements e;
    chain.load(i, e);
    chain.compute(i, e, x);
    chain.store(i, e);
}
