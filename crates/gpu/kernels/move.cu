// Moves elements of type Element, whose bits are copied and not read.
#include "base.cuh"
#include "table.cuh"

struct Box {
    u32 size[6], from[6], to[6];
};

// Element by element of a box: coordinates times the strides of both sides.
extern "C" __global__ void copy_box(const Element* x, Element* y, u32 count, const Box box) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    u32 rest = i, from = 0, to = 0;
#pragma unroll
    for (int d = 5; d >= 0; --d) {
        if (box.size[d] == 1) continue;
        u32 at = rest % box.size[d];
        rest /= box.size[d];
        from += at * box.from[d];
        to += at * box.to[d];
    }
    y[to] = x[from];
}

// x[outer, x_size, inner] from place x_first on, to y[outer, y_size, inner] from place y_first on,
// `size` places.
extern "C" __global__ void copy_part(
    const Element* x, Element* y, u32 count, u32 size, u32 inner, u32 x_size, u32 x_first,
    u32 y_size, u32 y_first
) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    u32 behind = i % inner, at = i / inner % size, before = i / inner / size;
    y[(before * y_size + y_first + at) * inner + behind] =
        x[(before * x_size + x_first + at) * inner + behind];
}

// y[outer, y_size, inner]: zeros, and from place `first` on x[outer, x_size, inner].
extern "C" __global__ void pad(
    const Element* x, Element* y, u32 count, u32 inner, u32 x_size, u32 y_size, u32 first
) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    u32 behind = i % inner, at = i / inner % y_size, before = i / inner / y_size;
    // Wraps around below `first`.
    u32 from = at - first;
    Element value = 0;
    if (from < x_size) value = x[(before * x_size + from) * inner + behind];
    y[i] = value;
}

// Rows of a table by their numbers.
extern "C" __global__ void gather(
    const Element* table, const int* index, Element* y, u32 count, u32 width
) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    y[i] = table[(u32)index[i / width] * width + i % width];
}

struct Copy {
    const float* commit;
    const Element* from;
    Element* to;
    u32 count, first;
};
struct Copies {
    u32 tensors, unused;
    Copy of[120];
};

// Many tensors: where the step is committed, or always.
extern "C" __global__ void __launch_bounds__(256) copies(
    const __grid_constant__ Copies table
) {
    const Copy& t = table.of[tensor_of(table, blockIdx.x)];
    if (t.commit != nullptr && *t.commit == 0.0f) return;
    u32 first = (blockIdx.x - t.first) * PART, end = min(first + PART, t.count);
#pragma unroll 4
    for (u32 i = first + threadIdx.x; i < end; i += 256) t.to[i] = t.from[i];
}
