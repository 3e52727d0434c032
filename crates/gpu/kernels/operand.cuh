// Operands of products, and what becomes of results: on Tensor Cores where HALF or BYTES say of
// which elements, else in f32.
//
// A product has rows and columns, both called `i` below, and a depth `k` over which it sums. An
// operand has ALONG, whether neighbours in k are neighbours in memory, or else those in i; row(i)
// and depth(k), what it has to know of each to find an element; and find(row, depth), where the
// element lies behind `p`, if it is not a zero that lies nowhere. WHOLE_LEFT and WHOLE_RIGHT say of an operand that 8
// neighbours from each multiple of 8 on lie together and at a multiple of their size, or all
// nowhere, and that none is beyond its sizes unless all are. WIDE is 4 where so many neighbours of a
// result may be stored at once, else 1.
#pragma once
#include "after.cuh"
#include "block.cuh"

// Elements that a thread brings at a time, and threads of a block: on Tensor Cores two warps for the
// rows of a tile, each with WARP_N of its columns.
#if defined(HALF) || defined(BYTES)
#define TENSOR
#include "tensor.cuh"
#define CHUNK (16 / BYTES)
// Columns of a tile that a warp has: many where there are many, which loads less.
#define WARP_N (TILE_N == 128 ? 64 : 32)
#define THREADS (TILE_N / WARP_N * 64)
#else
#define CHUNK 4
#define DEPTH 8
#define THREADS (TILE_M / 8 * (TILE_N / 8))
#endif

// Bounds of a launch: threads of a block, and blocks on a multiprocessor, or 0. To have more of them
// ptxas spills registers of small tiles. Of those that are copied it is told how many there is
// shared memory for at most; of those whose elements become others on the way, that 384 threads are
// enough.
#define COPIED_AS_THEY_ARE (PLANES == 1 && WHOLE_LEFT && WHOLE_RIGHT)
#if !defined(TENSOR)
#define BOUNDS THREADS
#elif BYTES > 1 && TILE_M == 64 && TILE_N == 64 && COPIED_AS_THEY_ARE
#define BOUNDS THREADS, 4
#else
#define CHANGED (BYTES == 4 || sizeof(TypeA) < BYTES)
#define ROOMY (PLANES > 1 || TILE_N == 32 && (COPIED_AS_THEY_ARE || CHANGED))
#define BOUNDS THREADS, (ROOMY ? 384 / THREADS : 0)
#endif

// A block sums a part of k, of so many: the one that its place along z says, where those of a batch
// lie one after another. Where there are counters, a block leaves its part in `sums`, and the last
// ones of a tile add them, `group` of them at a time.
struct Parts {
    u32 count, depth, group, unused;
    float* sums;
    u32* counters;
    __device__ u32 batch() const { return blockIdx.z / count; }
    __device__ u32 first() const { return blockIdx.z % count * depth; }
    __device__ u32 end(u32 k) const { return k < first() + depth ? k : first() + depth; }
};

// The place of an element, if it has one.
struct Found {
    u32 at;
    bool there;
};

// A stored matrix whose rows run along k, or across it, from element `first` on.
template <class T, bool ALONG_K>
struct Matrix {
    typedef T Element;
    static const bool ALONG = ALONG_K;
    const T* p;
    u32 width, first;
    __device__ u32 row(u32 i) const { return first + (ALONG ? i * width : i); }
    __device__ u32 depth(u32 k) const { return ALONG ? k : k * width; }
    __device__ Found find(u32 row, u32 depth) const { return Found{row + depth, true}; }
};

// Number of rows and columns of a result, and where the sum begins and ends.
struct Extent {
    u32 m, n, begin, end;
};

// The part of the tiles of an operand that a thread brings: SIZE of i from `first` on, by DEPTH of
// k. Its chunks have one place in the rows of the tile, and are STRIDE of those apart.
template <class Operand, bool WHOLE, u32 SIZE>
struct Part {
    typedef typename Operand::Element Element;
    static const bool ALONG = Operand::ALONG;
    static const u32 ROW = (ALONG ? DEPTH : SIZE) / CHUNK;
    static const u32 STRIDE = THREADS / ROW;
    static const u32 EACH = SIZE * DEPTH / CHUNK / THREADS;
    static_assert(THREADS % ROW == 0 && SIZE * DEPTH % (CHUNK * THREADS) == 0, "a chunk is shared");

    const Operand& operand;
    u32 first, count;
    // Of the thread's rows where they run along k, else of its columns.
    decltype(operand.row(0)) rows[ALONG ? EACH : 1];

    __device__ Part(const Operand& operand, u32 first, u32 count)
        : operand(operand), first(first), count(count) {
#pragma unroll
        for (u32 j = 0; j < (ALONG ? EACH : 1); ++j)
            rows[j] = operand.row(first + (ALONG ? row(j) : column()));
    }

    // Where chunk `j` of the thread lies in the tile.
    __device__ static u32 row(u32 j) { return threadIdx.x / ROW + j * STRIDE; }
    __device__ static u32 column() { return threadIdx.x % ROW * CHUNK; }

    // Calls `use(j, found)` with where each chunk of the tile from k on lies.
    template <class Use>
    __device__ void each(u32 k, u32 end, Use use) const {
        auto along = operand.depth(k + column());
#pragma unroll
        for (u32 j = 0; j < EACH; ++j) {
            u32 i = first + (ALONG ? row(j) : column()), at = k + (ALONG ? column() : row(j));
            bool there = i < count && at < end;
            auto depth = ALONG ? along : operand.depth(at);
            Found found = operand.find(rows[ALONG ? j : 0], depth);
            use(j, Found{found.at, there && found.there});
        }
    }

    // Calls `use(j, e, x)` with element `e` of each chunk, where it is one.
    template <class Use>
    __device__ void each_element(u32 k, u32 end, Use use) const {
        if constexpr (WHOLE) {
            each(k, end, [&](u32 j, Found found) {
                if (!found.there) return;
                auto several = *(const Several<Element, CHUNK>*)(operand.p + found.at);
#pragma unroll
                for (u32 e = 0; e < CHUNK; ++e) use(j, e, several.of[e]);
            });
            return;
        }
#pragma unroll
        for (u32 e = 0; e < CHUNK; ++e) {
            u32 i = first + column() + e, at = k + column() + e;
            auto along = operand.depth(at);
            auto across = operand.row(i);
#pragma unroll
            for (u32 j = 0; j < EACH; ++j) {
                if (ALONG) i = first + row(j);
                if (!ALONG) at = k + row(j);
                if (i >= count || at >= end) continue;
                Found found = ALONG ? operand.find(rows[j], along)
                                    : operand.find(across, operand.depth(at));
                if (found.there) use(j, e, operand.p[found.at]);
            }
        }
    }
};

// Takes sums of WIDE neighbours from `column` on, in COUNT ascending rows: `row(n)` says which, and
// `get(n, x)` has them. This leaves them as parts of sums, in row-major order, the `number`-th of
// matrices of the same size. Where that lies is computed behind the sums, which leave few registers.
struct Partial {
    float* sums;
    u32 number, first, column;
    __device__ Partial(float* sums, u32 number) : sums(sums), number(number) {}
    __device__ void begin(const Extent& extent, u32 at) {
        first = number * (extent.m * extent.n);
        column = at;
    }
    template <u32 COUNT, class Row, class Get>
    __device__ void put(const Extent& extent, Row row, Get get) const {
#pragma unroll
        for (u32 n = 0; n < COUNT; ++n) {
            float x[WIDE];
            get(n, x);
            if (row(n) < extent.m && column < extent.n)
                put_several<WIDE>(sums, first + row(n) * extent.n + column, x);
        }
    }
};

// This makes results of them, to which a bias may be added before they are rounded.
struct Results {
    const Chain& chain;
    const float* bias;
    u32 number, first, column;
    float added[WIDE];
    __device__ Results(const Chain& chain, u32 number, const float* bias)
        : chain(chain), bias(bias), number(number) {}
    __device__ void begin(const Extent& extent, u32 at) {
        first = number * (extent.m * extent.n);
        column = at;
        // Which changes nothing.
#pragma unroll
        for (u32 e = 0; e < WIDE; ++e) added[e] = -0.0f;
        if (bias != nullptr && column < extent.n) get_several<WIDE>(bias, column, added);
    }
    template <u32 COUNT, class Row, class Get>
    __device__ void put(const Extent& extent, Row row, Get get) const {
        if (!there(extent, row(0))) return;
        Chain::Elements elements[COUNT];
        // The thread's first element where there is none.
        auto at = [&](u32 n) {
            return first + (there(extent, row(n)) ? row(n) : row(0)) * extent.n + column;
        };
#pragma unroll
        for (u32 n = 0; n < COUNT; ++n) chain.load(at(n), elements[n]);
#pragma unroll
        for (u32 n = 0; n < COUNT; ++n) {
            float x[WIDE];
            get(n, x);
#pragma unroll
            for (u32 e = 0; e < WIDE; ++e) x[e] += added[e];
            chain.compute(at(n), elements[n], x);
        }
#pragma unroll
        for (u32 n = 0; n < COUNT; ++n)
            if (there(extent, row(n))) chain.store(at(n), elements[n]);
    }
    __device__ bool there(const Extent& extent, u32 row) const {
        return row < extent.m && column < extent.n;
    }
};

#ifdef TENSOR
#include "tensor_product.cuh"
#else
#include "product.cuh"
#endif

// Gives `store` the sums of the block's tile in `count` parts from `first` on, each `step` parts
// behind the one before.
template <class Store>
__device__ inline void add_tile(
    const Extent& extent, const float* sums, u32 first, u32 step, u32 count, Store store
) {
    // Rows of the block's threads, and those of a thread of which the loads are on their way
    // together.
    const u32 DOWN = THREADS * WIDE / TILE_N, COUNT = 8;
    static_assert(TILE_M % (DOWN * COUNT) == 0, "rows are left over");
    u32 size = extent.m * extent.n, column = blockIdx.y * TILE_N + threadIdx.x * WIDE % TILE_N;
    store.begin(extent, column);
#pragma unroll 1
    for (u32 from = 0; from < TILE_M; from += DOWN * COUNT) {
        auto row = [&](u32 n) {
            return blockIdx.x * TILE_M + threadIdx.x * WIDE / TILE_N + from + n * DOWN;
        };
        if (row(0) >= extent.m || column >= extent.n) return;
        float x[COUNT][WIDE] = {};
#pragma unroll 2
        for (u32 part = 0; part < count; ++part) {
#pragma unroll
            for (u32 n = 0; n < COUNT; ++n) {
                // The thread's first element where there is none.
                u32 i = (row(n) < extent.m ? row(n) : row(0)) * extent.n + column;
                float y[WIDE];
                get_several<WIDE>(sums, (first + part * step) * size + i, y);
#pragma unroll
                for (u32 e = 0; e < WIDE; ++e) x[n][e] += y[e];
            }
        }
        store.template put<COUNT>(extent, row, [&](u32 n, float* to) {
#pragma unroll
            for (u32 e = 0; e < WIDE; ++e) to[e] = x[n][e];
        });
    }
}

// The product of a batch, or the block's part of it. Parts are added in groups, each by the last
// block of the group, and then groups by the last of those.
template <class A, class B>
__device__ inline void whole_product(
    const Extent& extent, const A& a, const B& b, const Parts& parts, const float* bias,
    const Chain& chain
) {
    product(extent, a, b, [&](auto put) {
        if (parts.counters == nullptr)
            put(Results(chain, blockIdx.z, bias));
        else
            put(Partial(parts.sums, blockIdx.z));
    });
    if (parts.counters == nullptr) return;
    u32 batch = parts.batch(), groups = (parts.count + parts.group - 1) / parts.group;
    u32 tile = (batch * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    u32* counters = parts.counters + tile * (groups + 1);
    u32 group = blockIdx.z % parts.count / parts.group, first = group * parts.group;
    u32 members = min(parts.group, parts.count - first);
    if (!is_last(counters + group, members)) return;
    float* sums = parts.sums + batch * parts.count * (extent.m * extent.n);
    Results results(chain, batch, bias);
    if (groups == 1) {
        add_tile(extent, sums, 0, 1, members, results);
        return;
    }
    add_tile(extent, sums, first, 1, members, Partial(sums, first));
    if (is_last(counters + groups, groups)) add_tile(extent, sums, 0, parts.group, groups, results);
}
