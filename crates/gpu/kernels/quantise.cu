// Numbers as codes in blocks have them: the largest magnitude of a block decides its scale. FORMAT
// is E4M3, E5M2 or E2M1.
#include "base.cuh"
#include "block.cuh"
#include "philox.cuh"

enum Scale { FLOOR, EVEN, NO_OVERFLOW, POWER_OF_TWO, NVFP4 };

// How a block is scaled, and NaN where it is not finite.
struct Scaling {
    float reciprocal, value, divisor;
};

__device__ inline float two_to(int n) {
    return n >= -126 ? __uint_as_float((u32)(n + 127) << 23) : __uint_as_float(1u << (n + 149));
}

// The largest exponent of the format.
__device__ inline int largest_exponent() {
    return (int)(FORMAT::MAX >> FORMAT::MANTISSA) + FORMAT::MIN_FIELD - 128;
}

__device__ inline int exponent_of(float most, int rule) {
    if (most == 0.0f) return -127;
    u32 bits = __float_as_uint(most);
    if (bits < 1u << 23) bits = __float_as_uint(most * 8388608.0f) - (23u << 23);
    int floor = ((int)bits >> 23) - 127;
    float significand = __uint_as_float(bits & 0x7fffff | 0x3f800000);
    // The significand of the largest number.
    float top = 1.0f + (float)(FORMAT::MAX & (1u << FORMAT::MANTISSA) - 1) /
                           (float)(1u << FORMAT::MANTISSA);
    bool up = rule == FLOOR  ? false
              : rule == EVEN ? significand >= 2.0f - 0.5f / (float)(1u << FORMAT::MANTISSA)
                             : significand > top;
    int exponent = floor + (up ? 1 : 0) - largest_exponent();
    return exponent < -127 ? -127 : exponent > 127 ? 127 : exponent;
}

struct Form {
    int rule;
    u32 draws, number;
};

// The value of a number's code in a block with this largest magnitude; `draw_at` is the number of
// its draw.
__device__ inline float quantised(
    float x, float most, const Form& form, const float* tensor_scale, const int* key, u64 draw_at
) {
    if (!is_finite(most)) return NOT_A_NUMBER;
    float scaled, scale;
    if (form.rule == NVFP4) {
        scale = coded<E4M3>(most / 6.0f / *tensor_scale, true);
        if (scale == 0.0f) return 0.0f;
        scaled = x / (scale * *tensor_scale);
    } else {
        int exponent = exponent_of(most, form.rule);
        if (form.rule == POWER_OF_TWO && exponent < -126) exponent = -126;
        scale = two_to(exponent);
        scaled = x * two_to(-exponent);
    }
    if (!form.draws) return coded<FORMAT>(scaled, true) * scale;
    return coded<FORMAT>(scaled, draw(key, form.number, ((u64)(u32)key[3] << 34) + draw_at), true) *
           scale;
}

// x[outer, length, inner] in blocks of `size` along the middle, a block to a thread.
extern "C" __global__ void along_axis(
    const TypeX* x, TypeY* y, const float* tensor_scale, const int* key, const Form form,
    u32 blocks, u32 length, u32 inner, u32 size
) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= blocks) return;
    u32 each = (length + size - 1) / size;
    u32 behind = i % inner, block = i / inner % each, slice = i / inner / each;
    u32 first = block * size, end = min(first + size, length);
    float most = 0.0f;
    for (u32 at = first; at < end; ++at)
        most = larger(most, fabsf(get(x, (slice * length + at) * inner + behind)));
    for (u32 at = first; at < end; ++at) {
        u32 place = (slice * length + at) * inner + behind;
        u64 number = (u64)(slice * inner + behind) * length + at;
        put(y, place, quantised(get(x, place), most, form, tensor_scale, key, number));
    }
}

// Squares of 128 by 128 of matrices x[outer, rows, width], one to a block.
extern "C" __global__ void squares(
    const TypeX* x, TypeY* y, const int* key, const Form form, u32 rows, u32 width
) {
    __shared__ float shared[32];
    u32 top = blockIdx.y * 128, left = blockIdx.x * 128, matrix = blockIdx.z * rows * width;
    u32 high = min(128u, rows - top), wide = min(128u, width - left);
    float most = 0.0f;
    for (u32 i = threadIdx.x; i < high * wide; i += blockDim.x)
        most = larger(most, fabsf(get(x, matrix + (top + i / wide) * width + left + i % wide)));
    most = over_block(most, Larger(), shared);
    u64 first = ((u64)(blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x) << 14;
    for (u32 i = threadIdx.x; i < high * wide; i += blockDim.x) {
        u32 place = matrix + (top + i / wide) * width + left + i % wide;
        put(y, place, quantised(get(x, place), most, form, nullptr, key, first + i));
    }
}
