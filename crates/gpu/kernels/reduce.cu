// Reductions. Chunks depend on the shape and the type alone.
#include "columns.cuh"

struct Magnitude {
    __device__ float operator()(float x) const { return fabsf(x); }
};
struct Itself {
    __device__ float operator()(float x) const { return x; }
};

// y[row] of x[rows, size], `divisor` being what the sum is divided by.
template <class F, class M>
__device__ inline void rows(
    const TypeX* x, TypeY* y, float* parts, u32* counters, u32 size, u32 chunk, float divisor,
    float empty, F combine, M map
) {
    __shared__ float shared[32];
    u32 first = blockIdx.y * chunk, end = min(first + chunk, size);
    u32 row = blockIdx.x * size;
    float result = empty;
#pragma unroll 4
    for (u32 i = first + threadIdx.x * WIDE; i < end; i += blockDim.x * WIDE) {
        float v[WIDE];
        get_several<WIDE>(x, row + i, v);
#pragma unroll
        for (u32 k = 0; k < WIDE; ++k) result = combine(result, map(v[k]));
    }
    result = over_block(result, combine, shared);
    if (gridDim.y > 1) {
        parts += blockIdx.x * gridDim.y;
        if (threadIdx.x == 0) parts[blockIdx.y] = result;
        if (!is_last(counters + blockIdx.x, gridDim.y)) return;
        result = empty;
        for (u32 c = threadIdx.x; c < gridDim.y; c += blockDim.x)
            result = combine(result, parts[c]);
        result = over_block(result, combine, shared);
    }
    if (threadIdx.x == 0) put(y, blockIdx.x, result / divisor);
}

// y[outer, width] of x[outer, size, width].
template <class F, class M>
__device__ inline void columns(
    const TypeX* x, TypeY* y, float* parts, u32* counters, u32 size, u32 width, u32 chunk,
    float divisor, float empty, F combine, M map
) {
    __shared__ float shared[ROOM];
    Rows at(size, chunk);
    x += blockIdx.z * size * width;
    float results[WIDE];
#pragma unroll
    for (u32 k = 0; k < WIDE; ++k) results[k] = empty;
    if (at.column < width) {
        auto load = [&](u32 r, Neighbours& v) {
            get_several<WIDE>(x, r * width + at.column, v.of);
        };
        each_row<8, Neighbours>(at, load, [&](u32, bool there, const Neighbours& v) {
#pragma unroll
            for (u32 k = 0; k < WIDE; ++k) {
                float with = combine(results[k], map(v.of[k]));
                results[k] = there ? with : results[k];
            }
        });
    }
    float result = down_block(results, combine, shared);
    if (gridDim.y > 1) {
        parts += blockIdx.z * gridDim.y * width;
        if (owns(width)) parts[blockIdx.y * width + own_column()] = result;
        if (!is_last(counters + blockIdx.z * gridDim.x + blockIdx.x, gridDim.y)) return;
        auto part = [&](u32 c, u32 column) { return parts[c * width + column]; };
        result = over_chunks(width, empty, combine, shared, part);
    }
    if (owns(width)) put(y, blockIdx.z * width + own_column(), result / divisor);
}

#define KIND(name, empty, combine, map)                                                      \
    extern "C" __global__ void __launch_bounds__(256) rows_##name(                           \
        const TypeX* x, TypeY* y, float* parts, u32* counters, u32 size, u32 chunk,          \
        float divisor                                                                        \
    ) {                                                                                      \
        rows(x, y, parts, counters, size, chunk, divisor, empty, combine, map);              \
    }                                                                                        \
    extern "C" __global__ void __launch_bounds__(256) columns_##name(                        \
        const TypeX* x, TypeY* y, float* parts, u32* counters, u32 size, u32 width,          \
        u32 chunk, float divisor                                                             \
    ) {                                                                                      \
        columns(x, y, parts, counters, size, width, chunk, divisor, empty, combine, map);    \
    }
KIND(sum, 0.0f, Add(), Itself())
KIND(max, -INFINITE, Larger(), Itself())
KIND(absmax, 0.0f, Larger(), Magnitude())
