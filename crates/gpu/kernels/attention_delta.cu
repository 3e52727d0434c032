// What the gradients of attention need of each row: the sum of dout · out. 16 threads add up a row,
// 4 neighbours at a time.
#include "attention.cuh"

#define LANES 16

extern "C" __global__ void attention_delta(
    const TypeY* out, const TypeY* dout, float* delta, u32 rows, const Heads s
) {
    u32 i = (blockIdx.x * blockDim.x + threadIdx.x) / LANES, lane = threadIdx.x % LANES;
    // Rows of delta are ordered by sequence, head and time; those of `out` by sequence, time, head.
    u32 row = i < rows ? i : 0, t = row % s.time, h = row / s.time % s.heads;
    u32 at = ((row / s.time / s.heads * s.time + t) * s.heads + h) * s.dim;
    float sum = 0.0f;
    if (s.dim % 4 == 0) {
        for (u32 d = lane * 4; d < s.dim; d += LANES * 4) {
            float a[4], b[4];
            get_several<4>(out, at + d, a);
            get_several<4>(dout, at + d, b);
#pragma unroll
            for (u32 e = 0; e < 4; ++e) sum = fmaf(a[e], b[e], sum);
        }
    } else {
        for (u32 d = lane; d < s.dim; d += LANES)
            sum = fmaf(get(out, at + d), get(dout, at + d), sum);
    }
#pragma unroll
    for (u32 distance = LANES / 2; distance > 0; distance /= 2)
        sum += __shfl_xor_sync(0xffffffff, sum, distance);
    if (i < rows && lane == 0) delta[i] = sum;
}
