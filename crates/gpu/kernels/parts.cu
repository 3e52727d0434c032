// The sums of the parts of products, [batch, parts, m, n], added in one order, and what becomes of
// the results. WIDE is 4 where n is a multiple of it, else 1.
#include "after.cuh"

#define THREADS 256

// `ways` threads share the parts of WIDE elements, each with every `ways`-th; `size` is m n, and
// `width` n.
extern "C" __global__ void __launch_bounds__(THREADS) add_parts(
    const float* sums, const float* bias, u32 count, u32 size, u32 width, u32 parts, u32 ways,
    const Chain chain
) {
    __shared__ alignas(16) float shared[THREADS][WIDE];
    u32 together = THREADS / ways, way = threadIdx.x / together;
    u32 i = (blockIdx.x * together + threadIdx.x % together) * WIDE;
    float x[WIDE] = {};
    if (i < count) {
        const float* p = sums + i / size * parts * size + i % size;
        get_several<WIDE>(p + way * size, 0, x);
#pragma unroll 4
        for (u32 part = way + ways; part < parts; part += ways) {
            float y[WIDE];
            get_several<WIDE>(p + part * size, 0, y);
#pragma unroll
            for (u32 e = 0; e < WIDE; ++e) x[e] += y[e];
        }
    }
    if (ways > 1) {
        put_several<WIDE>(shared[threadIdx.x], 0, x);
        __syncthreads();
        if (way > 0) return;
        for (u32 w = 1; w < ways; ++w) {
#pragma unroll
            for (u32 e = 0; e < WIDE; ++e) x[e] += shared[w * together + threadIdx.x][e];
        }
    }
    if (i >= count) return;
    if (bias != nullptr) {
#pragma unroll
        for (u32 e = 0; e < WIDE; ++e) x[e] += bias[i % width + e];
    }
    finish(chain, i, x);
}
