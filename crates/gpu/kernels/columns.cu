// Sums over rows with what norms need of each element, and what norms by columns make of them.
#include "columns.cuh"

// The mean of each column, and the mean of (x - center)^2, whose center is that mean or what is
// `given`; null where one is not wanted. Of each chunk the mean is taken first and then the squares
// of the distances to it; chunks are put together by the theorem of Steiner (Chan, Golub and
// LeVeque 1983, "Algorithms for computing the sample variance"). For more than four blocks on a
// multiprocessor ptxas would spill.
extern "C" __global__ void __launch_bounds__(256, 4) statistics(
    const TypeX* x, const float* given, float* mean, float* var, float* parts, u32* counters,
    u32 rows, u32 width, u32 chunk
) {
    __shared__ float shared[ROOM], means[COLUMNS];
    Rows at(rows, chunk);
    bool inside = at.column < width;
    float sums[WIDE] = {};
    auto load = [&](u32 r, Neighbours& v) { get_several<WIDE>(x, r * width + at.column, v.of); };
    if (inside) {
        each_row<8, Neighbours>(at, load, [&](u32, bool there, const Neighbours& v) {
#pragma unroll
            for (u32 k = 0; k < WIDE; ++k) sums[k] = there ? sums[k] + v.of[k] : sums[k];
        });
    }
    float sum = down_block(sums, Add(), shared), squares = 0.0f;
    float here = (float)(min(blockIdx.y * chunk + chunk, rows) - blockIdx.y * chunk);
    if (var) {
        if (threadIdx.x < COLUMNS) means[threadIdx.x] = sum / here;
        __syncthreads();
        float of[WIDE] = {};
        if (inside) {
            float m[WIDE];
#pragma unroll
            for (u32 k = 0; k < WIDE; ++k) m[k] = means[threadIdx.x % LANES * WIDE + k];
            each_row<8, Neighbours>(at, load, [&](u32, bool there, const Neighbours& v) {
#pragma unroll
                for (u32 k = 0; k < WIDE; ++k) {
                    float d = v.of[k] - m[k];
                    of[k] = there ? fmaf(d, d, of[k]) : of[k];
                }
            });
        }
        squares = down_block(of, Add(), shared);
    }
    u32 column = own_column(), all = gridDim.y * width;
    if (gridDim.y > 1) {
        if (owns(width)) {
            parts[blockIdx.y * width + column] = sum;
            if (var) parts[all + blockIdx.y * width + column] = squares;
        }
        if (!is_last(counters + blockIdx.x, gridDim.y)) return;
        auto of_sums = [&](u32 c, u32 column) { return parts[c * width + column]; };
        sum = over_chunks(width, 0.0f, Add(), shared, of_sums);
    }
    float m = sum / (float)rows;
    if (mean && owns(width)) mean[column] = m;
    if (!var) return;
    float center = given && owns(width) ? given[column] : m;
    if (gridDim.y > 1) {
        __syncthreads();
        if (threadIdx.x < COLUMNS) means[threadIdx.x] = center;
        __syncthreads();
        auto around = [&](u32 c, u32 column) {
            float n = (float)(min(c * chunk + chunk, rows) - c * chunk);
            float d = parts[c * width + column] / n - means[threadIdx.x % COLUMNS];
            return fmaf(n * d, d, parts[all + c * width + column]);
        };
        squares = over_chunks(width, 0.0f, Add(), shared, around);
    } else {
        squares = fmaf(here * (m - center), m - center, squares);
    }
    if (owns(width)) var[column] = squares / (float)rows;
}

// What sums of pairs and the gradient of a batch norm have of a row.
struct Both {
    Neighbours x, dy;
    float mean, rstd;
};

// Of dy x^ and of dy, with x^ = (x - mean) rstd, whose statistics are those of columns or of rows.
extern "C" __global__ void __launch_bounds__(256) pair_sums(
    const TypeX* x, const float* mean, const float* rstd, const TypeD* dy, float* of_products,
    float* of_dy, float* parts, u32* counters, u32 rows, u32 width, u32 chunk, int by_rows
) {
    __shared__ float shared[ROOM];
    Rows at(rows, chunk);
    float products[WIDE] = {}, sums[WIDE] = {};
    if (at.column < width) {
        float m[WIDE], s[WIDE];
        if (!by_rows) {
            get_several<WIDE>(mean, at.column, m);
            get_several<WIDE>(rstd, at.column, s);
        }
        auto load = [&](u32 r, Both& both) {
            get_several<WIDE>(x, r * width + at.column, both.x.of);
            get_several<WIDE>(dy, r * width + at.column, both.dy.of);
            both.mean = by_rows ? mean[r] : 0.0f;
            both.rstd = by_rows ? rstd[r] : 0.0f;
        };
        each_row<4, Both>(at, load, [&](u32, bool there, const Both& both) {
#pragma unroll
            for (u32 k = 0; k < WIDE; ++k) {
                float center = by_rows ? both.mean : m[k], scale = by_rows ? both.rstd : s[k];
                float d = there ? both.dy.of[k] : 0.0f;
                products[k] = fmaf(d, (both.x.of[k] - center) * scale, products[k]);
                sums[k] += d;
            }
        });
    }
    float product = down_block(products, Add(), shared), sum = down_block(sums, Add(), shared);
    if (gridDim.y > 1) {
        u32 all = gridDim.y * width;
        if (owns(width)) {
            parts[blockIdx.y * width + own_column()] = product;
            parts[all + blockIdx.y * width + own_column()] = sum;
        }
        if (!is_last(counters + blockIdx.x, gridDim.y)) return;
        auto first = [&](u32 c, u32 column) { return parts[c * width + column]; };
        auto second = [&](u32 c, u32 column) { return parts[all + c * width + column]; };
        product = over_chunks(width, 0.0f, Add(), shared, first);
        sum = over_chunks(width, 0.0f, Add(), shared, second);
    }
    if (owns(width)) {
        of_products[own_column()] = product;
        of_dy[own_column()] = sum;
    }
}

// dx = gamma rstd (dy - (dbeta + x^ dgamma) / rows).
extern "C" __global__ void __launch_bounds__(256) batch_norm_grad(
    const TypeX* x, const TypeG* gamma, const float* mean, const float* rstd, const TypeD* dy,
    const float* dgamma, const float* dbeta, TypeY* dx, u32 rows, u32 width, u32 chunk,
    float divisor
) {
    Rows at(rows, chunk);
    if (at.column >= width) return;
    float m[WIDE], s[WIDE], scale[WIDE], of_products[WIDE], of_dy[WIDE];
    get_several<WIDE>(mean, at.column, m);
    get_several<WIDE>(rstd, at.column, s);
    get_several<WIDE>(gamma, at.column, scale);
    get_several<WIDE>(dgamma, at.column, of_products);
    get_several<WIDE>(dbeta, at.column, of_dy);
#pragma unroll
    for (u32 k = 0; k < WIDE; ++k) {
        scale[k] *= s[k];
        of_products[k] /= divisor;
        of_dy[k] /= divisor;
    }
    auto load = [&](u32 r, Both& both) {
        get_several<WIDE>(x, r * width + at.column, both.x.of);
        get_several<WIDE>(dy, r * width + at.column, both.dy.of);
    };
    each_row<2, Both>(at, load, [&](u32 r, bool there, const Both& both) {
        float v[WIDE];
#pragma unroll
        for (u32 k = 0; k < WIDE; ++k) {
            float x_hat = (both.x.of[k] - m[k]) * s[k];
            v[k] = scale[k] * (both.dy.of[k] - fmaf(x_hat, of_products[k], of_dy[k]));
        }
        if (there) put_computed<WIDE>(dx, r * width + at.column, v);
    });
}
