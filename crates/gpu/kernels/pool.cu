// Pooling of images [N, H, W, C] by square windows without padding, and its gradient.
#include "base.cuh"

struct Window {
    u32 height, width, channels, out_height, out_width, size, stride;
    // The element of an image at a place of a window.
    __device__ u32 inside(u32 image, u32 row, u32 column, u32 dy, u32 dx, u32 c) const {
        u32 y = row * stride + dy, x = column * stride + dx;
        return ((image * height + y) * width + x) * channels + c;
    }
};

// An element of images of these sizes, taken apart.
struct Place {
    u32 image, row, column, c;
    __device__ Place(u32 i, u32 height, u32 width, u32 channels) {
        c = i % channels;
        column = i / channels % width;
        row = i / channels / width % height;
        image = i / channels / width / height;
    }
};

// The first largest element of a window, in scan order; a NaN is largest.
__device__ inline u32 largest(const TypeX* x, const Window& w, const Place& of) {
    float best = 0.0f;
    u32 place = ~0u;
    for (u32 dy = 0; dy < w.size; ++dy)
        for (u32 dx = 0; dx < w.size; ++dx) {
            u32 at = w.inside(of.image, of.row, of.column, dy, dx, of.c);
            float v = get(x, at);
            if (place == ~0u || v > best || (is_nan(v) && !is_nan(best))) {
                best = v;
                place = at;
            }
        }
    return place;
}

extern "C" __global__ void pool_max(const TypeX* x, TypeY* y, u32 count, const Window w) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    put(y, i, get(x, largest(x, w, Place(i, w.out_height, w.out_width, w.channels))));
}

extern "C" __global__ void pool_mean(const TypeX* x, TypeY* y, u32 count, const Window w) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    Place of(i, w.out_height, w.out_width, w.channels);
    float sum = 0.0f;
    for (u32 dy = 0; dy < w.size; ++dy)
        for (u32 dx = 0; dx < w.size; ++dx)
            sum += get(x, w.inside(of.image, of.row, of.column, dy, dx, of.c));
    put(y, i, sum / (float)(w.size * w.size));
}

// The sum of an element's shares of the gradients of all windows that it lies in, in scan order of
// the windows: share(window, its element of dy).
template <class F>
__device__ inline float gradient(u32 i, const Window& w, F share) {
    Place of(i, w.height, w.width, w.channels), window = of;
    u32 top = of.row < w.size ? 0 : (of.row - w.size) / w.stride + 1;
    u32 left = of.column < w.size ? 0 : (of.column - w.size) / w.stride + 1;
    float sum = 0.0f;
    for (u32 r = top; r <= of.row / w.stride && r < w.out_height; ++r)
        for (u32 s = left; s <= of.column / w.stride && s < w.out_width; ++s) {
            window.row = r;
            window.column = s;
            sum += share(
                window, ((of.image * w.out_height + r) * w.out_width + s) * w.channels + of.c
            );
        }
    return sum;
}

extern "C" __global__ void pool_max_grad(
    const TypeX* x, const TypeD* dy, TypeY* dx, u32 count, const Window w
) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    auto share = [&](const Place& window, u32 at) {
        return largest(x, w, window) == i ? get(dy, at) : 0.0f;
    };
    put(dx, i, gradient(i, w, share));
}

extern "C" __global__ void pool_mean_grad(const TypeD* dy, TypeY* dx, u32 count, const Window w) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    auto share = [&](const Place&, u32 at) { return get(dy, at) / (float)(w.size * w.size); };
    put(dx, i, gradient(i, w, share));
}
