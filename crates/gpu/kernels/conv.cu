// Convolutions of images [N, H, W, C] with windows [O, KH, KW, C], as products whose operands are
// looked up. PASS says which of the kernels is compiled: they are large.
#include "operand.cuh"

#define FORWARD 1
#define GRAD_INPUT 2
#define GRAD_WEIGHT 3

// A size by which numbers below 2^31 are divided: x / size is the upper half of 2 x multiplier,
// shifted (Granlund and Montgomery 1994, theorem 4.2).
struct Size {
    u32 size, multiplier, shift;
    __device__ operator u32() const { return size; }
    // Leaves the remainder in x.
    __device__ u32 divide(u32& x) const {
        u32 quotient = __umulhi(2 * x, multiplier) >> shift;
        x -= quotient * size;
        return quotient;
    }
};

struct Conv {
    Size height, width, channels, out_height, out_width, out_channels, window_width, stride;
    u32 images, window_height, pad;
    __device__ u32 window() const { return window_height * window_width * channels; }
    __device__ u32 places() const { return images * out_height * out_width; }
};

// The element of the image that stands at a place of the window of an output; none beyond the
// edges.
struct Windows {
    const Conv& s;
    // The first place of a window: its element, which may be none, and row and column, which wrap
    // around above and left of the image.
    struct Output {
        u32 at, y, x;
    };
    // What a place adds to them.
    typedef Output Place;
    __device__ Output output(u32 output) const {
        u32 ox = output, image = s.out_width.divide(ox), oy = image;
        image = s.out_height.divide(oy);
        u32 y = oy * s.stride - s.pad, x = ox * s.stride - s.pad;
        return Output{((image * s.height + y) * s.width + x) * s.channels, y, x};
    }
    __device__ Place place(u32 place) const {
        u32 c = place, kx = s.channels.divide(c), ky = s.window_width.divide(kx);
        return Place{(ky * s.width + kx) * s.channels + c, ky, kx};
    }
    __device__ Found find(const Output& o, const Place& p) const {
        return Found{o.at + p.at, o.y + p.y < s.height && o.x + p.x < s.width};
    }
};

#if PASS == FORWARD
// Rows are outputs, k the places of a window.
template <class T>
struct OutputsByPlaces {
    typedef T Element;
    static const bool ALONG = true;
    const T* p;
    Windows windows;
    __device__ auto row(u32 i) const { return windows.output(i); }
    __device__ auto depth(u32 k) const { return windows.place(k); }
    template <class Row, class Depth>
    __device__ Found find(const Row& row, const Depth& depth) const {
        return windows.find(row, depth);
    }
};

extern "C" __global__ void __launch_bounds__(BOUNDS) conv2d(
    const TypeA* x, const TypeB* w, const float* bias, const Conv s, const Parts parts,
    const Chain chain
) {
    OutputsByPlaces<TypeA> left{x, {s}};
    Matrix<TypeB, true> right{w, s.window(), 0};
    Extent extent{s.places(), s.out_channels, parts.first(), parts.end(s.window())};
    whole_product(extent, left, right, parts, bias, chain);
}
#endif

#if PASS == GRAD_INPUT
// Rows are places of the input, k the places of the windows that cover it, by output channel.
// UNIT_STRIDE says whether windows are at every place.
template <class T>
struct Covering {
    typedef T Element;
    static const bool ALONG = true;
    const T* p;
    const Conv& s;
    // Row and column of the place in the padded image; where the output of the window that begins
    // there lies, or with other strides the first output of the image.
    struct Input {
        u32 at, y, x;
    };
    // What a place of a window takes from them, and adds.
    struct Place {
        u32 at, y, x;
    };
    __device__ Input row(u32 i) const {
        u32 x = i, image = s.width.divide(x), y = image;
        image = s.height.divide(y);
        x += s.pad;
        y += s.pad;
        u32 output = image * s.out_height * s.out_width + (UNIT_STRIDE ? y * s.out_width + x : 0);
        return Input{output * s.out_channels, y, x};
    }
    __device__ Place depth(u32 k) const {
        u32 o = k, x = s.out_channels.divide(o), y = s.window_width.divide(x);
        return Place{UNIT_STRIDE ? o - (y * s.out_width + x) * s.out_channels : o, y, x};
    }
    __device__ Found find(const Input& input, const Place& place) const {
        u32 y = input.y - place.y, x = input.x - place.x;
        if (UNIT_STRIDE) {
            // Wraps around where the window would begin outside.
            return Found{input.at + place.at, y < s.out_height && x < s.out_width};
        }
        bool covers = input.y >= place.y && input.x >= place.x;
        u32 oy = s.stride.divide(y), ox = s.stride.divide(x);
        bool begins = y == 0 && x == 0 && oy < s.out_height && ox < s.out_width;
        u32 at = input.at + (oy * s.out_width + ox) * s.out_channels + place.at;
        return Found{at, covers && begins};
    }
};

// Columns are input channels, k places of a window by output channel.
template <class T>
struct Turned {
    typedef T Element;
    static const bool ALONG = false;
    const T* p;
    const Conv& s;
    __device__ u32 row(u32 c) const { return c; }
    __device__ u32 depth(u32 k) const {
        u32 o = k, place = s.out_channels.divide(o);
        return (o * s.window_height * s.window_width + place) * s.channels;
    }
    __device__ Found find(u32 c, u32 at) const { return Found{c + at, true}; }
};

// With strides in f32 ptxas would spill to have a fourth block of these tiles on a multiprocessor.
#if !defined(TENSOR) && !UNIT_STRIDE && TILE_M == 128 && TILE_N == 64
#undef BOUNDS
#define BOUNDS THREADS, 3
#endif

extern "C" __global__ void __launch_bounds__(BOUNDS) conv2d_grad_input(
    const TypeA* dy, const TypeB* w, const float* bias, const Conv s, const Parts parts,
    const Chain chain
) {
    Covering<TypeA> left{dy, s};
    Turned<TypeB> right{w, s};
    u32 depth = s.window_height * s.window_width * s.out_channels;
    u32 places = s.images * s.height * s.width;
    Extent extent{places, s.channels, parts.first(), parts.end(depth)};
    whole_product(extent, left, right, parts, bias, chain);
}
#endif

#if PASS == GRAD_WEIGHT
// Columns are places of a window, k outputs.
template <class T>
struct PlacesByOutputs {
    typedef T Element;
    static const bool ALONG = false;
    const T* p;
    Windows windows;
    __device__ auto row(u32 i) const { return windows.place(i); }
    __device__ auto depth(u32 k) const { return windows.output(k); }
    template <class Row, class Depth>
    __device__ Found find(const Row& row, const Depth& depth) const {
        return windows.find(depth, row);
    }
};

// Operand A is the image, as in all three kernels, and the right one of the product.
extern "C" __global__ void __launch_bounds__(BOUNDS) conv2d_grad_weight(
    const TypeA* x, const TypeB* dy, const float* bias, const Conv s, const Parts parts,
    const Chain chain
) {
    Matrix<TypeB, false> left{dy, s.out_channels, 0};
    PlacesByOutputs<TypeA> right{x, {s}};
    Extent extent{s.out_channels, s.window(), parts.first(), parts.end(s.places())};
    whole_product(extent, left, right, parts, bias, chain);
}
#endif
