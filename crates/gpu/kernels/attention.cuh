// Where heads lie, and which of them a block of threads works on.
#pragma once
#include "base.cuh"

// Elements between neighbours in time of q, k and v are `stride`; of all else heads * dim.
struct Heads {
    u32 heads, time, dim, stride, causal;
    float scale;
};

// Rows of one head, in order of time.
template <class T>
struct Rows {
    T* first;
    u32 stride;
    __device__ u32 offset(u32 t, u32 d) const { return t * stride + d; }
    __device__ T* at(u32 t, u32 d) const { return first + offset(t, d); }
};

// SIDE queries or keys of a head, and SIDE elements of results where a block of threads does not
// have all. Blocks with the most to do are the first.
template <u32 SIDE>
struct Place {
    const Heads& s;
    u32 head, part, batch, block;

    // Under a causal mask the last queries see most keys, and the first keys are seen most; without
    // one either order will do.
    __device__ Place(const Heads& s, bool last_first) : s(s) {
        head = blockIdx.x % s.heads;
        part = blockIdx.x / s.heads * SIDE;
        batch = blockIdx.y;
        block = last_first ? gridDim.z - 1 - blockIdx.z : blockIdx.z;
    }

    __device__ u32 first() const { return block * SIDE; }
    __device__ u32 blocks() const { return (s.time + SIDE - 1) / SIDE; }
    // Blocks of keys that these queries see.
    __device__ u32 seen() const { return s.causal ? block + 1 : blocks(); }
    // The first block of queries that see these keys.
    __device__ u32 seeing() const { return s.causal ? block : 0; }

    // Of q, k or v, and their gradients.
    template <class T>
    __device__ Rows<T> operand(T* p) const {
        return {p + (batch * s.time * s.stride + head * s.dim), s.stride};
    }
    // Of the result and its gradient.
    template <class T>
    __device__ Rows<T> result(T* p) const {
        u32 width = s.heads * s.dim;
        return {p + (batch * s.time * width + head * s.dim), width};
    }
    // Of numbers by row.
    template <class T>
    __device__ T* number(T* p) const {
        return p + (batch * s.heads + head) * s.time;
    }
};
