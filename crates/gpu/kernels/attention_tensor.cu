// Attention on Tensor Cores, by FlashAttention-2 (Dao 2023): a block of threads has 64 queries of a
// head, each of its 4 warps 16, and meets the keys 64 at a time; those of the next turn are copied
// meanwhile. Scores are sums in f32 of exact products; the softmax is kept as the largest score and
// the sum so far, in f32; probabilities relative to that score are rounded to HALF where they are
// multiplied by values. A lane has rows lane / 4 and lane / 4 + 8 of its warp's, in pairs of
// columns.
#include "attention_tiles.cuh"

// The running softmax of a lane's two rows.
struct Softmax {
    float most[2] = {-INFINITE, -INFINITE}, total[2] = {};

    // Turns the scores of 64 keys into probabilities, and what was added up before into what it is
    // relative to the largest score now.
    __device__ void turn(float (*scores)[4], float (*sums)[4], float scale) {
#pragma unroll
        for (u32 h = 0; h < 2; ++h) {
            // A NaN may be lost here, but not from the powers.
            float top = most[h];
#pragma unroll
            for (u32 j = 0; j < SIDE / 8; ++j)
                top = fmaxf(top, fmaxf(scores[j][h * 2], scores[j][h * 2 + 1]));
            top = fmaxf(top, __shfl_xor_sync(0xffffffff, top, 1));
            top = fmaxf(top, __shfl_xor_sync(0xffffffff, top, 2));
            float keep = power((most[h] - top) * scale), less = -top * scale, added = 0.0f;
            most[h] = top;
#pragma unroll
            for (u32 j = 0; j < SIDE / 8; ++j)
#pragma unroll
                for (u32 e = h * 2; e < h * 2 + 2; ++e) {
                    scores[j][e] = power(fmaf(scores[j][e], scale, less));
                    added += scores[j][e];
                }
            total[h] = fmaf(total[h], keep, added);
#pragma unroll
            for (u32 j = 0; j < CHUNKS; ++j) {
                sums[j][h * 2] *= keep;
                sums[j][h * 2 + 1] *= keep;
            }
        }
    }

    // Over the lanes that share a row.
    __device__ float sum(u32 h) const {
        float sum = total[h] + __shfl_xor_sync(0xffffffff, total[h], 1);
        return sum + __shfl_xor_sync(0xffffffff, sum, 2);
    }
};

extern "C" __global__ void __launch_bounds__(THREADS) attention(
    const HALF* q, const HALF* k, const HALF* v, HALF* out, float* lse, const Heads s
) {
    // Keys and values of this turn, and of the next; the queries first lie where those will be.
    extern __shared__ Tile tiles[];
    Place<SIDE> at(s, true);
    Rows<const HALF> keys = at.operand(k), values = at.operand(v);
    u32 lane = threadIdx.x % 32, own = threadIdx.x / 32 * 16, turns = at.seen();
    fetch(tiles[2], at.operand(q), at.first(), s);
    fetch(tiles[0], keys, 0, s);
    fetch(tiles[1], values, 0, s);
    commit_copies();
    wait_for_copies<0>();
    __syncthreads();
    u32 queries[WIDTH / 16][4];
#pragma unroll
    for (u32 d = 0; d < WIDTH; d += 16) load_own(queries[d / 16], tiles[2], own, d);
    float sums[CHUNKS][4] = {};
    Softmax softmax;
    for (u32 turn = 0; turn < turns; ++turn) {
        const Tile* now = tiles + turn % 2 * 2;
        // This turn's tiles are there, and nobody reads the others any more.
        wait_for_copies<0>();
        __syncthreads();
        if (turn + 1 < turns) {
            Tile* next = tiles + (turn + 1) % 2 * 2;
            fetch(next[0], keys, (turn + 1) * SIDE, s);
            fetch(next[1], values, (turn + 1) * SIDE, s);
            commit_copies();
        }
        float scores[SIDE / 8][4] = {};
#pragma unroll
        for (u32 d = 0; d < WIDTH; d += 16)
#pragma unroll
            for (u32 j = 0; j < SIDE / 8; j += 2) {
                u32 right[4];
                load_columns(right, now[0], j * 8, d);
                multiply(scores[j], queries[d / 16], right);
                multiply(scores[j + 1], queries[d / 16], right + 2);
            }
#pragma unroll
        for (u32 e = 0; e < 4; ++e) {
            u32 query = at.first() + own + lane / 4 + e / 2 * 8;
            int last = last_seen(s, query, turn * SIDE);
#pragma unroll
            for (u32 j = 0; j < SIDE / 8; ++j)
                if ((int)(j * 8 + e % 2) > last) scores[j][e] = -INFINITE;
        }
        softmax.turn(scores, sums, s.scale * LOG2_E);
#pragma unroll
        for (u32 j = 0; j < SIDE / 8; j += 2) {
            u32 left[4];
            pack(left, scores + j);
            add_rows(sums, left, now[1], j * 8);
        }
    }
    float factors[2];
#pragma unroll
    for (u32 h = 0; h < 2; ++h) {
        float sum = softmax.sum(h);
        u32 query = at.first() + own + lane / 4 + h * 8;
        if (lane % 4 == 0 && query < s.time)
            at.number(lse)[query] = fmaf(softmax.most[h], s.scale, logarithm(sum));
        factors[h] = 1.0f / sum;
    }
    __syncthreads();
    store(at.result(out), at.first(), sums, factors, tiles[0], s);
}
