// Gradients of attention on Tensor Cores. With p = exp(scale · q kᵀ - lse) and delta by rows:
//   dv = pᵀ dout,  ds = p · (dout vᵀ - delta),  dq = scale · ds k,  dk = scale · dsᵀ q.
// One kernel has 64 queries in a block of threads and meets the keys, the other 64 keys and meets
// the queries, so that every sum is one warp's and has one order; both compute scores and
// probabilities again. p and ds are rounded to HALF where they are multiplied. A warp has 16 rows
// of the block's, and takes the other side STEP rows at a time.
#include "attention_tiles.cuh"

// Wider heads leave fewer registers for scores.
#define STEP (WIDTH > 64 ? 16 : 32)

// 16 rows of two operands, as left operands.
struct Own {
    u32 first[WIDTH / 16][4], second[WIDTH / 16][4];

    __device__ void load(const Tile* tiles, u32 row) {
#pragma unroll
        for (u32 d = 0; d < WIDTH; d += 16) {
            load_own(first[d / 16], tiles[0], row, d);
            load_own(second[d / 16], tiles[1], row, d);
        }
    }
};

// Products with STEP rows of two tiles, from `row` on: scores, and the gradients of probabilities.
struct Scores {
    float of[STEP / 8][4], grads[STEP / 8][4];

    __device__ void add(const u32* first, const u32* second, const Tile* tiles, u32 row, u32 d) {
#pragma unroll
        for (u32 j = 0; j < STEP / 8; j += 2) {
            u32 right[4];
            load_columns(right, tiles[0], row + j * 8, d);
            multiply(of[j], first, right);
            multiply(of[j + 1], first, right + 2);
            load_columns(right, tiles[1], row + j * 8, d);
            multiply(grads[j], second, right);
            multiply(grads[j + 1], second, right + 2);
        }
    }
};

extern "C" __global__ void __launch_bounds__(THREADS) attention_grad_queries(
    const HALF* q, const HALF* k, const HALF* v, const HALF* dout, const float* lse,
    const float* delta, HALF* dq, const Heads s
) {
    // Keys and values of this turn, and of the next; q and dout first lie where those will be.
    extern __shared__ Tile tiles[];
    Place<SIDE> at(s, true);
    Rows<const HALF> keys = at.operand(k), values = at.operand(v);
    u32 lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16, turns = at.seen();
    fetch(tiles[2], at.operand(q), at.first(), s);
    fetch(tiles[3], at.result(dout), at.first(), s);
    fetch(tiles[0], keys, 0, s);
    fetch(tiles[1], values, 0, s);
    commit_copies();
    float less[2], deltas[2], sums[CHUNKS][4] = {}, scale = s.scale * LOG2_E;
#pragma unroll
    for (u32 h = 0; h < 2; ++h) {
        u32 query = at.first() + row + lane / 4 + h * 8;
        less[h] = query < s.time ? -at.number(lse)[query] * LOG2_E : 0.0f;
        deltas[h] = query < s.time ? at.number(delta)[query] : 0.0f;
    }
    wait_for_copies<0>();
    __syncthreads();
    Own own;
    own.load(tiles + 2, row);
    for (u32 turn = 0; turn < turns; ++turn) {
        const Tile* now = tiles + turn % 2 * 2;
        wait_for_copies<0>();
        __syncthreads();
        if (turn + 1 < turns) {
            Tile* next = tiles + (turn + 1) % 2 * 2;
            fetch(next[0], keys, (turn + 1) * SIDE, s);
            fetch(next[1], values, (turn + 1) * SIDE, s);
            commit_copies();
        }
#pragma unroll
        for (u32 step = 0; step < SIDE; step += STEP) {
            Scores scores = {};
#pragma unroll
            for (u32 d = 0; d < WIDTH; d += 16)
                scores.add(own.first[d / 16], own.second[d / 16], now, step, d);
#pragma unroll
            for (u32 e = 0; e < 4; ++e) {
                u32 query = at.first() + row + lane / 4 + e / 2 * 8;
                int last = last_seen(s, query, turn * SIDE + step);
#pragma unroll
                for (u32 j = 0; j < STEP / 8; ++j) {
                    float p = power(fmaf(scores.of[j][e], scale, less[e / 2]));
                    if ((int)(j * 8 + e % 2) > last) p = 0.0f;
                    scores.of[j][e] = p * (scores.grads[j][e] - deltas[e / 2]);
                }
            }
#pragma unroll
            for (u32 j = 0; j < STEP / 8; j += 2) {
                u32 left[4];
                pack(left, scores.of + j);
                add_rows(sums, left, now[0], step + j * 8);
            }
        }
    }
    float factors[2] = {s.scale, s.scale};
    __syncthreads();
    store(at.operand(dq), at.first(), sums, factors, tiles[0], s);
}

// Whether registers hold the keys and values of the block; else they stay in shared memory.
#define KEPT (WIDTH <= 64)

// log-sum-exp and delta of 64 queries.
struct Numbers {
    float lse[SIDE], delta[SIDE];

    // Asks for those from `first` on; zeros behind the last query: with dout, which is zero there,
    // nothing comes of it.
    __device__ void fetch(const float* from_lse, const float* from_delta, u32 first, u32 time) {
        u32 i = threadIdx.x % SIDE, query = first + i;
        bool of_lse = threadIdx.x < SIDE, there = query < time;
        const float* from = of_lse ? from_lse : from_delta;
        float* to = of_lse ? lse : delta;
        copy_async<4>(shared_address(to + i), there ? from + query : from, there ? 4 : 0);
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, 2) attention_grad_keys(
    const HALF* q, const HALF* k, const HALF* v, const HALF* dout, const float* lse,
    const float* delta, HALF* dk, HALF* dv, const Heads s
) {
    // q and dout of this turn, and of the next; then keys and values.
    extern __shared__ Tile tiles[];
    __shared__ Numbers numbers[2];
    Place<SIDE> at(s, false);
    Rows<const HALF> queries = at.operand(q), douts = at.result(dout);
    u32 lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16;
    auto fetch_turn = [&](u32 turn) {
        u32 first = turn * SIDE, buffer = turn % 2;
        fetch(tiles[buffer * 2], queries, first, s);
        fetch(tiles[buffer * 2 + 1], douts, first, s);
        numbers[buffer].fetch(at.number(lse), at.number(delta), first, s.time);
        commit_copies();
    };
    u32 first = at.seeing();
    Tile* kept = tiles + (KEPT ? (first + 1) % 2 * 2 : 4);
    fetch(kept[0], at.operand(k), at.first(), s);
    fetch(kept[1], at.operand(v), at.first(), s);
    fetch_turn(first);
    wait_for_copies<0>();
    __syncthreads();
    Own own;
    if (KEPT) own.load(kept, row);
    float keys[CHUNKS][4] = {}, values[CHUNKS][4] = {}, scale = s.scale * LOG2_E;
    for (u32 turn = first; turn < at.blocks(); ++turn) {
        const Tile* now = tiles + turn % 2 * 2;
        const Numbers& known = numbers[turn % 2];
        wait_for_copies<0>();
        __syncthreads();
        if (turn + 1 < at.blocks()) fetch_turn(turn + 1);
        // The first query that sees a key, counted from the lane's first column.
        int seen_from[2];
#pragma unroll
        for (u32 h = 0; h < 2; ++h) {
            int from = (int)(row + lane / 4 + h * 8) - (int)(lane % 4 * 2);
            seen_from[h] = s.causal && turn == first ? from : -SIDE;
        }
        // Addresses of all steps at once are more than registers hold besides sums of wide heads.
#pragma unroll KEPT ? SIDE / STEP : 1
        for (u32 step = 0; step < SIDE; step += STEP) {
            Scores scores = {};
#pragma unroll
            for (u32 d = 0; d < WIDTH; d += 16) {
                if (!KEPT) {
                    load_own(own.first[0], kept[0], row, d);
                    load_own(own.second[0], kept[1], row, d);
                }
                u32 i = KEPT ? d / 16 : 0;
                scores.add(own.first[i], own.second[i], now, step, d);
            }
#pragma unroll
            for (u32 j = 0; j < STEP / 8; ++j)
#pragma unroll
                for (u32 e = 0; e < 4; ++e) {
                    u32 column = step + j * 8 + lane % 4 * 2 + e % 2;
                    float p = power(fmaf(scores.of[j][e], scale, -known.lse[column] * LOG2_E));
                    if ((int)(step + j * 8 + e % 2) < seen_from[e / 2]) p = 0.0f;
                    scores.of[j][e] = p;
                    scores.grads[j][e] = p * (scores.grads[j][e] - known.delta[column]);
                }
#pragma unroll
            for (u32 j = 0; j < STEP / 8; j += 2) {
                u32 left[4];
                pack(left, scores.of + j);
                add_rows(values, left, now[1], step + j * 8);
                pack(left, scores.grads + j);
                add_rows(keys, left, now[0], step + j * 8);
            }
        }
    }
    float scales[2] = {s.scale, s.scale}, ones[2] = {1.0f, 1.0f};
    __syncthreads();
    store(at.operand(dk), at.first(), keys, scales, tiles[0], s);
    store(at.operand(dv), at.first(), values, ones, tiles[1], s);
}
