// Reductions, one chunk to a block. Chunks depend on the shape alone; where there are several,
// another launch reduces their results.
#include "base.cuh"
#include "block.cuh"

struct Magnitude {
    __device__ float operator()(float x) const { return fabsf(x); }
};
struct Itself {
    __device__ float operator()(float x) const { return x; }
};

// y[row, chunk] of x[rows, size], `divisor` being what the sum is divided by.
template <class F, class M>
__device__ inline void rows(
    const TypeX* x, TypeY* y, u32 size, u32 chunk, float divisor, float empty, F combine, M map
) {
    __shared__ float shared[32];
    u32 first = blockIdx.y * chunk, end = min(first + chunk, size);
    u32 row = blockIdx.x * size;
    float result = empty;
    for (u32 i = first + threadIdx.x; i < end; i += blockDim.x)
        result = combine(result, map(get(x, row + i)));
    result = over_block(result, combine, shared);
    if (threadIdx.x == 0) put(y, blockIdx.x * gridDim.y + blockIdx.y, result / divisor);
}

// y[outer, chunk, inner] of x[outer, size, inner]: 32 columns and 8 rows of threads.
template <class F, class M>
__device__ inline void columns(
    const TypeX* x, TypeY* y, u32 size, u32 inner, u32 chunk, float divisor, float empty, F combine,
    M map
) {
    __shared__ float shared[8][32];
    u32 lane = threadIdx.x % 32, down = threadIdx.x / 32, column = blockIdx.x * 32 + lane;
    u32 first = blockIdx.y * chunk, end = min(first + chunk, size);
    float result = empty;
    if (column < inner)
        for (u32 i = first + down; i < end; i += 8)
            result = combine(result, map(get(x, (blockIdx.z * size + i) * inner + column)));
    shared[down][lane] = result;
    __syncthreads();
    if (down == 0 && column < inner) {
        for (u32 i = 1; i < 8; ++i) result = combine(result, shared[i][lane]);
        put(y, (blockIdx.z * gridDim.y + blockIdx.y) * inner + column, result / divisor);
    }
}

#define KIND(name, empty, combine, map)                                         \
    extern "C" __global__ void rows_##name(                                     \
        const TypeX* x, TypeY* y, u32 size, u32 chunk, float divisor            \
    ) {                                                                         \
        rows(x, y, size, chunk, divisor, empty, combine, map);                  \
    }                                                                           \
    extern "C" __global__ void columns_##name(                                  \
        const TypeX* x, TypeY* y, u32 size, u32 inner, u32 chunk, float divisor \
    ) {                                                                         \
        columns(x, y, size, inner, chunk, divisor, empty, combine, map);        \
    }
KIND(sum, 0.0f, Add(), Itself())
KIND(max, -INFINITE, Larger(), Itself())
KIND(absmax, 0.0f, Larger(), Magnitude())
