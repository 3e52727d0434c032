// Convolutions of images [N, H, W, C] with windows [O, KH, KW, C], as products whose operands are
// looked up. PASS says which of the kernels is compiled: they are large.
#include "operand.cuh"

#define FORWARD 1
#define GRAD_INPUT 2
#define GRAD_WEIGHT 3

struct Conv {
    u32 images, height, width, channels, out_height, out_width, out_channels, window_height,
        window_width, stride, pad;
    __device__ u32 window() const { return window_height * window_width * channels; }
    __device__ u32 places() const { return images * out_height * out_width; }
};

// The element of the image that stands at a place of the window of an output; none beyond the
// edges.
template <class T>
struct Windows {
    const T* x;
    const Conv& s;
    __device__ bool together() const { return s.channels % 8 == 0; }
    __device__ const T* find(u32 output, u32 place) const {
        u32 ox = output % s.out_width, oy = output / s.out_width % s.out_height;
        u32 image = output / s.out_width / s.out_height;
        u32 c = place % s.channels, kx = place / s.channels % s.window_width;
        u32 ky = place / s.channels / s.window_width;
        // Wraps around above and left of the image.
        u32 iy = oy * s.stride + ky - s.pad, ix = ox * s.stride + kx - s.pad;
        if (iy >= s.height || ix >= s.width) return nullptr;
        return x + ((image * s.height + iy) * s.width + ix) * s.channels + c;
    }
};

#if PASS == FORWARD
// Rows are outputs, k the places of a window.
template <class T>
struct OutputsByPlaces {
    Windows<T> windows;
    static const bool ALONG = true;
    __device__ bool together() const { return windows.together(); }
    __device__ const T* find(u32 i, u32 k) const { return windows.find(i, k); }
};

extern "C" __global__ void __launch_bounds__(THREADS) conv2d(
    const TypeA* x, const TypeB* w, const float* bias, const Conv s, const Parts parts,
    const Chain chain
) {
    OutputsByPlaces<TypeA> left{{x, s}};
    Matrix<TypeB, true> right{w, s.window()};
    product(
        s.places(), s.out_channels, parts.first(), parts.end(s.window()), left, right,
        RowMajor{chain, blockIdx.z * s.places() * s.out_channels, s.out_channels, bias}
    );
}
#endif

#if PASS == GRAD_INPUT
// Rows are places of the input, k the places of the windows that cover it, by output channel.
template <class T>
struct Covering {
    const T* dy;
    const Conv& s;
    static const bool ALONG = true;
    __device__ bool together() const { return s.out_channels % 8 == 0; }
    __device__ const T* find(u32 i, u32 k) const {
        u32 ix = i % s.width, iy = i / s.width % s.height, image = i / s.width / s.height;
        u32 o = k % s.out_channels, kx = k / s.out_channels % s.window_width;
        u32 ky = k / s.out_channels / s.window_width;
        u32 y = iy + s.pad - ky, x = ix + s.pad - kx;
        // Wraps around where the window would begin outside.
        if (iy + s.pad < ky || ix + s.pad < kx || y % s.stride != 0 || x % s.stride != 0)
            return nullptr;
        y /= s.stride;
        x /= s.stride;
        if (y >= s.out_height || x >= s.out_width) return nullptr;
        return dy + ((image * s.out_height + y) * s.out_width + x) * s.out_channels + o;
    }
};

// Columns are input channels, k places of a window by output channel.
template <class T>
struct Turned {
    const T* w;
    const Conv& s;
    static const bool ALONG = false;
    __device__ bool together() const { return true; }
    __device__ const T* find(u32 c, u32 k) const {
        u32 o = k % s.out_channels, place = k / s.out_channels;
        return w + (o * s.window_height * s.window_width + place) * s.channels + c;
    }
};

extern "C" __global__ void __launch_bounds__(THREADS) conv2d_grad_input(
    const TypeA* dy, const TypeB* w, const float* bias, const Conv s, const Parts parts,
    const Chain chain
) {
    Covering<TypeA> left{dy, s};
    Turned<TypeB> right{w, s};
    u32 depth = s.window_height * s.window_width * s.out_channels;
    u32 places = s.images * s.height * s.width;
    product(
        places, s.channels, parts.first(), parts.end(depth), left, right,
        RowMajor{chain, blockIdx.z * places * s.channels, s.channels, bias}
    );
}
#endif

#if PASS == GRAD_WEIGHT
// Columns are places of a window, k outputs.
template <class T>
struct PlacesByOutputs {
    Windows<T> windows;
    static const bool ALONG = false;
    __device__ bool together() const { return windows.together(); }
    __device__ const T* find(u32 i, u32 k) const { return windows.find(k, i); }
};

extern "C" __global__ void __launch_bounds__(THREADS) conv2d_grad_weight(
    const TypeA* x, const TypeB* dy, const float* bias, const Conv s, const Parts parts,
    const Chain chain
) {
    Matrix<TypeB, false> left{dy, s.out_channels};
    PlacesByOutputs<TypeA> right{{x, s}};
    product(
        s.out_channels, s.window(), parts.first(), parts.end(s.places()), left, right,
        RowMajor{chain, blockIdx.z * s.out_channels * s.window(), s.window(), bias}
    );
}
#endif
