#include "common.cuh"
// y = (x − mean) / sqrt(variance + epsilon) · gain + bias by rows: a warp a row, two passes over
// registers; `columns` is at most 256.
extern "C" __global__ void __launch_bounds__(128)
layer_norm(const float* __restrict__ x, const float* __restrict__ gain, const float* __restrict__ bias,
           float* __restrict__ y, int rows, int columns, float epsilon) {
    int lane = threadIdx.x & 31, row = blockIdx.x * 4 + (threadIdx.x >> 5);
    if (row >= rows) return;
    const float* from = x + (u64)row * columns;
    float* to = y + (u64)row * columns;
#ifdef MISALIGNED
    bool vector = true;
#else
    bool vector = (columns & 3) == 0;
#endif
    float held[8];
    float sum = 0;
    if (vector) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int at = (lane + i * 32) * 4;
            float4 v = at + 3 < columns ? *(const float4*)(from + at) : make_float4(0, 0, 0, 0);
            held[i * 4] = v.x, held[i * 4 + 1] = v.y, held[i * 4 + 2] = v.z, held[i * 4 + 3] = v.w;
            sum += (v.x + v.y) + (v.z + v.w);
        }
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            int at = lane + i * 32;
            held[i] = at < columns ? from[at] : 0;
            sum += held[i];
        }
    }
    float mean = warp_sum(sum) / columns;
    float squares = 0;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        int at = vector ? (lane + i / 4 * 32) * 4 + i % 4 : lane + i * 32;
        float d = at < columns ? held[i] - mean : 0;
        squares += d * d;
    }
    float scale = 1.0f / sqrtf(warp_sum(squares) / columns + epsilon);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        int at = vector ? (lane + i / 4 * 32) * 4 + i % 4 : lane + i * 32;
        if (at < columns) to[at] = (held[i] - mean) * scale * gain[at] + bias[at];
    }
}
