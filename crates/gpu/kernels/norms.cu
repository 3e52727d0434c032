// Norms whose result a chain may go on with.
#include "after.cuh"
#include "block.cuh"
#include "columns.cuh"
#include "rows.cuh"

// dx = rstd (dy gamma - (sum of dy gamma + x^ sum of dy gamma x^) / size), with x^ = (x - mean)
// rstd.
extern "C" __global__ void layer_norm_grad(
    const TypeX* x, const TypeG* gamma, const float* mean, const float* rstd, const TypeD* dy,
    const Chain chain, u32 size
) {
    __shared__ float shared[2][32];
    u32 row = blockIdx.x * size;
    float m = mean[blockIdx.x], r = rstd[blockIdx.x];
    Part<TypeX> of_x(x + row);
    Part<TypeD> of_dy(dy + row);
    float sum = 0.0f, dot = 0.0f;
    for_each(size, [&](u32 e, u32 i) {
        const float *v = of_x.first(e, i), *d = of_dy.first(e, i);
        float scale[WIDE];
        get_several<WIDE>(gamma, i, scale);
#pragma unroll
        for (u32 k = 0; k < WIDE; ++k) {
            sum += d[k] * scale[k];
            dot = fmaf(d[k] * scale[k], (v[k] - m) * r, dot);
        }
    });
    sum = over_block(sum, Add(), shared[0]);
    dot = over_block(dot, Add(), shared[1]);
    for_each(size, [&](u32 e, u32 i) {
        const float *v = of_x.again(e, i), *d = of_dy.again(e, i);
        float scale[WIDE], dx[WIDE];
        get_several<WIDE>(gamma, i, scale);
#pragma unroll
        for (u32 k = 0; k < WIDE; ++k)
            dx[k] = r * (d[k] * scale[k] - fmaf((v[k] - m) * r, dot, sum) / (float)size);
        finish(chain, row + i, dx);
    });
}

extern "C" __global__ void __launch_bounds__(256) batch_norm(
    const TypeX* x, const TypeG* gamma, const TypeG* beta, const float* mean, const float* var,
    float* rstd, const Chain chain, u32 rows, u32 width, u32 chunk, float eps
) {
    Rows at(rows, chunk);
    if (at.column >= width) return;
    float m[WIDE], s[WIDE], scale[WIDE], shift[WIDE];
    get_several<WIDE>(mean, at.column, m);
    get_several<WIDE>(var, at.column, s);
    get_several<WIDE>(gamma, at.column, scale);
    get_several<WIDE>(beta, at.column, shift);
#pragma unroll
    for (u32 k = 0; k < WIDE; ++k) s[k] = 1.0f / sqrtf(s[k] + eps);
    if (at.first == 0) put_several<WIDE>(rstd, at.column, s);
    struct Elements {
        Neighbours x;
        Chain::Elements chained;
    };
    auto load = [&](u32 r, Elements& e) {
        get_several<WIDE>(x, r * width + at.column, e.x.of);
        chain.load(r * width + at.column, e.chained);
    };
    each_row<2, Elements>(at, load, [&](u32 r, bool there, Elements& e) {
        u32 i = r * width + at.column;
        float v[WIDE];
#pragma unroll
        for (u32 k = 0; k < WIDE; ++k) v[k] = fmaf((e.x.of[k] - m[k]) * s[k], scale[k], shift[k]);
        chain.compute(i, e.chained, v);
        if (there) chain.store(i, e.chained);
    });
}
