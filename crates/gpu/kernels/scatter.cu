// Adds rows at their index, in the order of the rows: no atomics, so that the same bits come out
// always.
#include "base.cuh"

// A warp has a row of the table, and 256 of its columns; it looks through all indices, 256 at a time.
extern "C" __global__ void scatter_add(
    const TypeX* x, const int* index, TypeY* table, u32 indices, u32 rows, u32 width
) {
    const u32 EACH = 8;
    u32 lane = threadIdx.x % 32, row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    u32 first = blockIdx.y * 32 * EACH + lane;
    if (row >= rows) return;
    float sum[EACH] = {};
    for (u32 start = 0; start < indices; start += 32 * EACH) {
        bool mine[EACH];
#pragma unroll
        for (u32 n = 0; n < EACH; ++n) {
            u32 at = start + 32 * n + lane;
            mine[n] = at < indices && index[min(at, indices - 1)] == (int)row;
        }
#pragma unroll
        for (u32 n = 0; n < EACH; ++n) {
            u32 found = __ballot_sync(0xffffffff, mine[n]);
            while (found != 0) {
                u32 at = start + 32 * n + __ffs(found) - 1;
                found &= found - 1;
#pragma unroll
                for (u32 k = 0; k < EACH; ++k)
                    if (first + 32 * k < width) sum[k] += get(x, at * width + first + 32 * k);
            }
        }
    }
#pragma unroll
    for (u32 k = 0; k < EACH; ++k)
        if (first + 32 * k < width) put(table, row * width + first + 32 * k, sum[k]);
}
