// Operands of products, and what becomes of results: on Tensor Cores where HALF or BYTES say of
// which elements, else in f32.
//
// A product has rows and columns, both called `i` below, and a depth `k` over which it sums. An
// operand has ALONG, whether neighbours in k are neighbours in memory, or else those in i; row(i)
// and depth(k), what it has to know of each to find an element; and find(row, depth), where the
// element lies, or nothing where it is zero. WHOLE_LEFT and WHOLE_RIGHT say of an operand that 8
// neighbours from each multiple of 8 on lie together and at a multiple of their size, or all
// nowhere, and that none is beyond its sizes unless all are. WIDE is 4 where so many neighbours of a
// result may be stored at once, else 1.
#pragma once
#include "after.cuh"
#include "block.cuh"

// Elements that a thread brings at a time, and threads of a block: on Tensor Cores two warps for the
// rows of a tile, each with 32 of its columns.
#if defined(HALF) || defined(BYTES)
#define TENSOR
#include "tensor.cuh"
#define CHUNK (16 / BYTES)
#define THREADS (TILE_N / 32 * 64)
#else
#define CHUNK 4
#define DEPTH 8
#define THREADS (TILE_M / 8 * (TILE_N / 8))
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

// A stored matrix whose rows run along k, or across it.
template <class T, bool ALONG_K>
struct Matrix {
    typedef T Element;
    static const bool ALONG = ALONG_K;
    const T* p;
    u32 width;
    __device__ u32 row(u32 i) const { return ALONG ? i * width : i; }
    __device__ u32 depth(u32 k) const { return ALONG ? k : k * width; }
    __device__ const T* find(u32 row, u32 depth) const { return p + (row + depth); }
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

    // Calls `use(j, p)` with where each chunk of the tile from k on lies, or with nothing.
    template <class Use>
    __device__ void each(u32 k, u32 end, Use use) const {
        auto along = operand.depth(k + column());
#pragma unroll
        for (u32 j = 0; j < EACH; ++j) {
            u32 i = first + (ALONG ? row(j) : column()), at = k + (ALONG ? column() : row(j));
            bool there = i < count && at < end;
            auto depth = ALONG ? along : operand.depth(at);
            use(j, there ? operand.find(rows[ALONG ? j : 0], depth) : nullptr);
        }
    }

    // Calls `use(j, e, x)` with element `e` of each chunk, where it is one.
    template <class Use>
    __device__ void each_element(u32 k, u32 end, Use use) const {
        if constexpr (WHOLE) {
            each(k, end, [&](u32 j, const Element* p) {
                if (p == nullptr) return;
                Several<Element, CHUNK> several = *(const Several<Element, CHUNK>*)p;
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
                auto p = ALONG ? operand.find(rows[j], along)
                               : operand.find(across, operand.depth(at));
                if (p != nullptr) use(j, e, *p);
            }
        }
    }
};

// A result of row-major order, to which a bias may be added before it is rounded; or a part of the
// sum.
struct RowMajor {
    const Chain& chain;
    // Of its first element.
    u32 first;
    const float* bias;
    float* part;
    // WIDE neighbours, if they are there.
    __device__ void put(const Extent& extent, u32 row, u32 column, float* x) const {
        if (row >= extent.m || column >= extent.n) return;
        if (part != nullptr) {
            put_several<WIDE>(part, row * extent.n + column, x);
            return;
        }
        if (bias != nullptr) {
#pragma unroll
            for (u32 e = 0; e < WIDE; ++e) x[e] += bias[column + e];
        }
        chain(first + row * extent.n + column, x);
    }
};

#ifdef TENSOR
#include "tensor_product.cuh"
#else
#include "product.cuh"
#endif

// Calls use(row, column, i, x) with the sum of the block's tile in `count` parts from `first` on,
// each `step` parts behind the one before, for all elements of the tile.
template <class Use>
__device__ inline void add_tile(
    const Extent& extent, const float* sums, u32 first, u32 step, u32 count, Use use
) {
    u32 size = extent.m * extent.n;
    for (u32 e = threadIdx.x * WIDE; e < TILE_M * TILE_N; e += THREADS * WIDE) {
        u32 row = blockIdx.x * TILE_M + e / TILE_N, column = blockIdx.y * TILE_N + e % TILE_N;
        if (row >= extent.m || column >= extent.n) continue;
        u32 i = row * extent.n + column;
        float x[WIDE] = {};
#pragma unroll 4
        for (u32 part = 0; part < count; ++part) {
            float y[WIDE];
            get_several<WIDE>(sums, (first + part * step) * size + i, y);
#pragma unroll
            for (u32 k = 0; k < WIDE; ++k) x[k] += y[k];
        }
        use(row, column, i, x);
    }
}

// The product of a batch, or the block's part of it. Parts are added in groups, each by the last
// block of the group, and then groups by the last of those.
template <class A, class B>
__device__ inline void whole_product(
    const Extent& extent, const A& a, const B& b, const Parts& parts, const float* bias,
    const Chain& chain
) {
    u32 size = extent.m * extent.n;
    if (parts.counters == nullptr) {
        product(extent, a, b, RowMajor{chain, blockIdx.z * size, bias, nullptr});
        return;
    }
    product(extent, a, b, RowMajor{chain, 0, bias, parts.sums + blockIdx.z * size});
    u32 batch = parts.batch(), groups = (parts.count + parts.group - 1) / parts.group;
    u32 tile = (batch * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    u32* counters = parts.counters + tile * (groups + 1);
    u32 group = blockIdx.z % parts.count / parts.group, first = group * parts.group;
    u32 members = min(parts.group, parts.count - first);
    if (!is_last(counters + group, members)) return;
    float* sums = parts.sums + batch * parts.count * size;
    RowMajor to{chain, batch * size, bias, nullptr};
    auto finish = [&](u32 row, u32 column, u32, float* x) { to.put(extent, row, column, x); };
    if (groups == 1) {
        add_tile(extent, sums, 0, 1, members, finish);
        return;
    }
    auto keep = [&](u32, u32, u32 i, float* x) { put_several<WIDE>(sums + first * size, i, x); };
    add_tile(extent, sums, first, 1, members, keep);
    if (is_last(counters + groups, groups))
        add_tile(extent, sums, 0, parts.group, groups, finish);
}
