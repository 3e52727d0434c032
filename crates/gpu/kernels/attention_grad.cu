// Gradients of attention in f32. With p = exp(scale · q kᵀ - lse) and delta by rows:
//   dv = pᵀ dout,  ds = p · (dout vᵀ - delta),  dq = scale · ds k,  dk = scale · dsᵀ q.
// One kernel has 64 queries in a block of threads and meets the keys, the other 64 keys and meets
// the queries, so that every sum has one order; both compute scores and probabilities again.
#include "attention_squares.cuh"

// Turns scores of a query and a key into p, and the gradient of p into ds / scale.
__device__ inline void differentiate(
    float& score, float& grad, bool seen, float lse, float delta, float scale
) {
    // Computed for all, and then chosen: there are no branches.
    float exponent = fmaf(score, scale, -lse);
    score = exponential(seen ? exponent : -INFINITE);
    float of_grad = score * (grad - delta);
    grad = seen ? of_grad : 0.0f;
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) attention_grad_queries(
    const TypeX* q, const TypeX* k, const TypeX* v, const TypeY* dout, const float* lse,
    const float* delta, TypeX* dq, const Heads s
) {
    __shared__ Square squares[3];
    Place<SIDE> at(s, true);
    u32 across = threadIdx.x % 16, down = at.first() + threadIdx.x / 16;
    float sums[4][4] = {}, factors[4];
    for (u32 block = 0; block < at.seen(); ++block) {
        u32 first = block * SIDE;
        float scores[4][4], grads[4][4];
        multiply_rows(scores, squares, at.operand(q), at.first(), at.operand(k), first, s);
        multiply_rows(grads, squares, at.result(dout), at.first(), at.operand(v), first, s);
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            u32 query = down + i * 16, known = query < s.time ? query : 0;
            float of_lse = at.number(lse)[known], of_delta = at.number(delta)[known];
#pragma unroll
            for (u32 j = 0; j < 4; ++j) {
                u32 key = first + across + j * 16;
                bool seen = (key < s.time) & (query < s.time) & (!s.causal | (key <= query));
                differentiate(scores[i][j], grads[i][j], seen, of_lse, of_delta, s.scale);
            }
        }
        add_rows(sums, grads, squares, at.operand(k), first, at.part, s);
    }
#pragma unroll
    for (u32 i = 0; i < 4; ++i) factors[i] = s.scale;
    store(at.operand(dq), at.first(), at.part, sums, factors, s);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) attention_grad_keys(
    const TypeX* q, const TypeX* k, const TypeX* v, const TypeY* dout, const float* lse,
    const float* delta, TypeX* dk, TypeX* dv, const Heads s
) {
    __shared__ Square squares[3];
    Place<SIDE> at(s, false);
    u32 across = threadIdx.x % 16, down = at.first() + threadIdx.x / 16;
    float keys[4][4] = {}, values[4][4] = {}, factors[4], ones[4];
    for (u32 block = at.seeing(); block < at.blocks(); ++block) {
        u32 first = block * SIDE;
        float scores[4][4], grads[4][4];
        multiply_rows(scores, squares, at.operand(k), at.first(), at.operand(q), first, s);
        multiply_rows(grads, squares, at.operand(v), at.first(), at.result(dout), first, s);
#pragma unroll
        for (u32 j = 0; j < 4; ++j) {
            u32 query = first + across + j * 16, known = query < s.time ? query : 0;
            float of_lse = at.number(lse)[known], of_delta = at.number(delta)[known];
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                u32 key = down + i * 16;
                bool seen = (key < s.time) & (query < s.time) & (!s.causal | (key <= query));
                differentiate(scores[i][j], grads[i][j], seen, of_lse, of_delta, s.scale);
            }
        }
        add_rows(values, scores, squares, at.result(dout), first, at.part, s);
        add_rows(keys, grads, squares, at.operand(q), first, at.part, s);
    }
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
        factors[i] = s.scale;
        ones[i] = 1.0f;
    }
    store(at.operand(dk), at.first(), at.part, keys, factors, s);
    store(at.operand(dv), at.first(), at.part, values, ones, s);
}
