// Tables of tensors, of which each block of a launch works on a part of one.
#pragma once
#include "base.cuh"

// Elements of a tensor that a block works on.
#define PART 4096

// The tensor that block `b` works on: the last whose first block is not behind it.
template <class T>
__device__ inline u32 tensor_of(const T& table, u32 b) {
    u32 low = 0, high = table.tensors - 1;
    while (low < high) {
        u32 middle = (low + high + 1) / 2;
        if (table.of[middle].first <= b)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}
