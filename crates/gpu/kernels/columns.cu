// Sums over rows with what norms need of each element: partial sums of chunks of rows, [chunk,
// column], which reduce.cu adds; and what norms by columns make of them.
#include "base.cuh"

// Both sums of eight rows of threads, each for one column, added in order.
__device__ inline float over_rows(float x, float (*shared)[32]) {
    u32 lane = threadIdx.x % 32, down = threadIdx.x / 32;
    __syncthreads();
    shared[down][lane] = x;
    __syncthreads();
    x = shared[0][lane];
    for (u32 i = 1; i < 8; ++i) x += shared[i][lane];
    return x;
}

// Of (x - mean)^2, divided by `divisor`.
extern "C" __global__ void moments(
    const TypeX* x, const float* mean, float* to, u32 rows, u32 width, u32 chunk, float divisor
) {
    __shared__ float shared[8][32];
    u32 down = threadIdx.x / 32, column = blockIdx.x * 32 + threadIdx.x % 32;
    u32 first = blockIdx.y * chunk, end = min(first + chunk, rows);
    float sum = 0.0f;
    if (column < width) {
        float m = mean[column];
        for (u32 r = first + down; r < end; r += 8) {
            float d = get(x, r * width + column) - m;
            sum = fmaf(d, d, sum);
        }
    }
    sum = over_rows(sum, shared);
    if (down == 0 && column < width) to[blockIdx.y * width + column] = sum / divisor;
}

// Of dy x^ and of dy, with x^ = (x - mean) rstd, whose statistics are those of columns or of rows.
extern "C" __global__ void pair_sums(
    const TypeX* x, const float* mean, const float* rstd, const TypeD* dy, float* of_products,
    float* of_dy, u32 rows, u32 width, u32 chunk, int by_rows
) {
    __shared__ float shared[8][32];
    u32 down = threadIdx.x / 32, column = blockIdx.x * 32 + threadIdx.x % 32;
    u32 first = blockIdx.y * chunk, end = min(first + chunk, rows);
    float products = 0.0f, sum = 0.0f;
    if (column < width)
        for (u32 r = first + down; r < end; r += 8) {
            u32 of = by_rows ? r : column;
            float d = get(dy, r * width + column);
            products = fmaf(d, (get(x, r * width + column) - mean[of]) * rstd[of], products);
            sum += d;
        }
    products = over_rows(products, shared);
    sum = over_rows(sum, shared);
    if (down == 0 && column < width) {
        of_products[blockIdx.y * width + column] = products;
        of_dy[blockIdx.y * width + column] = sum;
    }
}

// dx = gamma rstd (dy - (dbeta + x^ dgamma) / rows).
extern "C" __global__ void batch_norm_grad(
    const TypeX* x, const TypeG* gamma, const float* mean, const float* rstd, const TypeD* dy,
    const float* dgamma, const float* dbeta, TypeY* dx, u32 count, u32 width, float rows
) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    u32 c = i % width;
    float normal = (get(x, i) - mean[c]) * rstd[c];
    put(dx, i, get(gamma, c) * rstd[c] * (get(dy, i) - fmaf(normal, dgamma[c], dbeta[c]) / rows));
}

// Adds chunks of two partial sums [chunks, width]: those of blockIdx.y.
extern "C" __global__ void add_pairs(
    const float* products, const float* dy, float* of_products, float* of_dy, u32 chunks, u32 width
) {
    __shared__ float shared[8][32];
    u32 down = threadIdx.x / 32, column = blockIdx.x * 32 + threadIdx.x % 32;
    const float* from = blockIdx.y == 0 ? products : dy;
    float sum = 0.0f;
    if (column < width)
        for (u32 i = down; i < chunks; i += 8) sum += from[i * width + column];
    sum = over_rows(sum, shared);
    if (down == 0 && column < width) (blockIdx.y == 0 ? of_products : of_dy)[column] = sum;
}
