// Work on columns of matrices. A block has 8 threads side by side, each with WIDE neighbouring
// columns, and 32 of them below each other; chunks of rows are blocks of their own, and the last of
// them that ends combines what all have left.
#pragma once
#include "base.cuh"
#include "block.cuh"

#define LANES 8
#define DOWN 32
// Columns of a block, and room for a result of each of its warps or threads.
#define COLUMNS (LANES * WIDE)
#define ROOM (8 * COLUMNS > 256 ? 8 * COLUMNS : 256)

// The first of a thread's columns, and the rows of its chunk: its own first one, and the end.
struct Rows {
    u32 column, first, end;
    __device__ Rows(u32 rows, u32 chunk) {
        column = (blockIdx.x * LANES + threadIdx.x % LANES) * WIDE;
        first = blockIdx.y * chunk + threadIdx.x / LANES;
        end = min(blockIdx.y * chunk + chunk, rows);
    }
};

// What a thread has of a row.
struct Neighbours {
    float of[WIDE];
};

// Calls load(row, elements) for each of a thread's rows and use(row, there, elements) behind it; of
// so many rows loads are on their way together. Beyond the last row `there` is false, and the
// elements are those of another row of the thread.
template <u32 BATCH, class Elements, class Load, class Use>
__device__ inline void each_row(const Rows& at, Load load, Use use) {
    for (u32 r = at.first; r < at.end; r += BATCH * DOWN) {
        Elements elements[BATCH];
#pragma unroll
        for (u32 n = 0; n < BATCH; ++n) {
            u32 row = r + n * DOWN;
            load(row < at.end ? row : r, elements[n]);
        }
#pragma unroll
        for (u32 n = 0; n < BATCH; ++n) use(r + n * DOWN, r + n * DOWN < at.end, elements[n]);
    }
}

// The column that thread t < COLUMNS of a block has the result of.
__device__ inline u32 own_column() { return blockIdx.x * COLUMNS + threadIdx.x; }
__device__ inline bool owns(u32 width) { return threadIdx.x < COLUMNS && own_column() < width; }

// What the threads of a block have of each column, combined from above to below.
template <class F>
__device__ inline float down_block(float* x, F combine, float* shared) {
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    // What an earlier call left there has been read.
    __syncthreads();
#pragma unroll
    for (u32 k = 0; k < WIDE; ++k) {
        x[k] = combine(x[k], __shfl_xor_sync(0xffffffff, x[k], 8));
        x[k] = combine(x[k], __shfl_xor_sync(0xffffffff, x[k], 16));
        if (lane < LANES) shared[warp * COLUMNS + lane * WIDE + k] = x[k];
    }
    __syncthreads();
    float y = 0.0f;
    if (threadIdx.x < COLUMNS) {
        y = shared[threadIdx.x];
        for (u32 w = 1; w < 8; ++w) y = combine(y, shared[w * COLUMNS + threadIdx.x]);
    }
    return y;
}

// What part(chunk, column) is for each chunk, combined in an order that their number decides.
template <class F, class P>
__device__ inline float over_chunks(u32 width, float empty, F combine, float* shared, P part) {
    u32 t = threadIdx.x % COLUMNS, column = blockIdx.x * COLUMNS + t;
    float x = empty;
    if (column < width) {
#pragma unroll 8
        for (u32 c = threadIdx.x / COLUMNS; c < gridDim.y; c += 256 / COLUMNS)
            x = combine(x, part(c, column));
    }
    __syncthreads();
    shared[threadIdx.x] = x;
    __syncthreads();
    x = shared[t];
    for (u32 d = 1; d < 256 / COLUMNS; ++d) x = combine(x, shared[d * COLUMNS + t]);
    return x;
}
