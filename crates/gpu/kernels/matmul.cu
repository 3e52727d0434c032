// c[batch, m, n] = a b + bias, both operands as they are stored: TA and TB say whether turned.
#include "operand.cuh"

struct Sizes {
    u32 m, n, k;
};

extern "C" __global__ void __launch_bounds__(BOUNDS) matmul(
    const TypeA* a, const TypeB* b, const float* bias, const Sizes s, const Parts parts,
    const Chain chain
) {
    u32 batch = parts.batch();
    Matrix<TypeA, !TA> left{a, TA ? s.m : s.k, batch * s.m * s.k};
    Matrix<TypeB, TB> right{b, TB ? s.k : s.n, batch * s.n * s.k};
    Extent extent{s.m, s.n, parts.first(), parts.end(s.k)};
    whole_product(extent, left, right, parts, bias, chain);
}
