// c[batch, m, n] = a b + bias, both operands as they are stored: TA and TB say whether turned.
#include "operand.cuh"

struct Sizes {
    u32 m, n, k;
};

extern "C" __global__ void __launch_bounds__(THREADS) matmul(
    const TypeA* a, const TypeB* b, const float* bias, const Sizes s, const Parts parts,
    const Chain chain
) {
    u64 batch = parts.batch();
    Matrix<TypeA, !TA> left{a + batch * s.m * s.k, TA ? s.m : s.k};
    Matrix<TypeB, TB> right{b + batch * s.n * s.k, TB ? s.k : s.n};
    Extent extent{s.m, s.n, parts.first(), parts.end(s.k)};
    whole_product(extent, left, right, parts, bias, chain);
}
