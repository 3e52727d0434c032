// Operands of products, and what becomes of results: on Tensor Cores where HALF says of which type,
// else in f32.
//
// An operand has ALONG, whether neighbours in k are neighbours in memory, or else those in i;
// find(i, k), where an element lies, or nothing where it is zero; and together(), whether from each
// multiple of 8 on 8 neighbours lie together, or all nowhere.
#pragma once
#ifdef HALF
#include "tensor_product.cuh"
#else
#include "product.cuh"
#endif

// A block sums a part of k, of so many: the one that its place along z says, where those of a batch
// lie one after another.
struct Parts {
    u32 count, depth;
    __device__ u32 batch() const { return blockIdx.z / count; }
    __device__ u32 first() const { return blockIdx.z % count * depth; }
    __device__ u32 end(u32 k) const { return k < first() + depth ? k : first() + depth; }
};

// A stored matrix whose rows run along k, or across it.
template <class T, bool ALONG_K>
struct Matrix {
    static const bool ALONG = ALONG_K;
    const T* p;
    u32 width;
    __device__ bool together() const { return true; }
    __device__ const T* find(u32 i, u32 k) const {
        return p + (ALONG ? i * width + k : k * width + i);
    }
};

// A result of row-major order, to which a bias may be added before it is rounded.
struct RowMajor {
    const Chain& chain;
    // Of its first element.
    u32 first;
    u32 width;
    const float* bias;
    __device__ void operator()(u32 row, u32 column, float x) const {
        chain(first + row * width + column, bias == nullptr ? x : x + bias[column]);
    }
};
