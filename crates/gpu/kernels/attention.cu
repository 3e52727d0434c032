// Attention in f32: 64 queries of a head to a block of threads, which meets the keys 64 at a time
// and keeps the softmax as the largest score and the sum so far. The 16 threads of a row agree on
// both.
#include "attention_squares.cuh"
#include "block.cuh"

template <class F>
__device__ inline float over_row(float x, F combine) {
#pragma unroll
    for (u32 distance = 8; distance > 0; distance /= 2)
        x = combine(x, __shfl_xor_sync(0xffffffff, x, distance));
    return x;
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) attention(
    const TypeX* q, const TypeX* k, const TypeX* v, TypeY* out, float* lse, const Heads s
) {
    __shared__ Square squares[3];
    Place<SIDE> at(s, true);
    u32 across = threadIdx.x % 16, query = at.first() + threadIdx.x / 16;
    float sums[4][4] = {}, most[4], total[4] = {};
#pragma unroll
    for (u32 i = 0; i < 4; ++i) most[i] = -INFINITE;
    for (u32 block = 0; block < at.seen(); ++block) {
        u32 first = block * SIDE;
        float scores[4][4];
        multiply_rows(scores, squares, at.operand(q), at.first(), at.operand(k), first, s);
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            float top = most[i], sum = 0.0f;
#pragma unroll
            for (u32 j = 0; j < 4; ++j) {
                u32 key = first + across + j * 16;
                bool seen = key < s.time && (!s.causal || key <= query + i * 16);
                scores[i][j] = seen ? scores[i][j] * s.scale : -INFINITE;
                top = larger(top, scores[i][j]);
            }
            top = over_row(top, Larger());
            float keep = exponential(most[i] - top);
            most[i] = top;
#pragma unroll
            for (u32 j = 0; j < 4; ++j) {
                scores[i][j] = exponential(scores[i][j] - top);
                sum += scores[i][j];
                sums[i][j] *= keep;
            }
            total[i] = fmaf(total[i], keep, over_row(sum, Add()));
        }
        add_rows(sums, scores, squares, at.operand(v), first, at.part, s);
    }
    float factors[4];
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
        factors[i] = 1.0f / total[i];
        u32 t = query + i * 16;
        if (at.part == 0 && across == 0 && t < s.time)
            at.number(lse)[t] = most[i] + logarithm(total[i]);
    }
    store(at.result(out), at.first(), at.part, sums, factors, s);
}
