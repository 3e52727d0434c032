// The sums of the parts of products, [batch, parts, m, n], added in one order, and what becomes of
// the results.
#include "after.cuh"

// `ways` threads share the parts of an element, each with every `ways`-th; `size` is m n, and
// `width` n.
extern "C" __global__ void __launch_bounds__(256) add_parts(
    const float* sums, const float* bias, u32 count, u32 size, u32 width, u32 parts, u32 ways,
    const Chain chain
) {
    __shared__ float shared[256];
    u32 together = 256 / ways, way = threadIdx.x / together;
    u32 i = blockIdx.x * together + threadIdx.x % together;
    float x = 0.0f;
    if (i < count) {
        const float* p = sums + i / size * parts * size + i % size;
        x = p[way * size];
#pragma unroll 4
        for (u32 part = way + ways; part < parts; part += ways) x += p[part * size];
    }
    if (ways > 1) {
        shared[threadIdx.x] = x;
        __syncthreads();
        if (way > 0) return;
        for (u32 w = 1; w < ways; ++w) x += shared[w * together + threadIdx.x];
    }
    if (i < count) chain(i, bias == nullptr ? x : x + bias[i % width]);
}
