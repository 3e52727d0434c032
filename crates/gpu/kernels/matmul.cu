// c[batch, m, n] = a b + bias, both operands as they are stored: TA and TB say whether turned.
#include "operand.cuh"

extern "C" __global__ void __launch_bounds__(THREADS) matmul(
    const TypeA* a, const TypeB* b, const float* bias, u32 m, u32 n, u32 k, const Chain chain
) {
    u32 batch = blockIdx.z;
    Matrix<TypeA, !TA> left{a + (u64)batch * m * k, TA ? m : k};
    Matrix<TypeB, TB> right{b + (u64)batch * n * k, TB ? k : n};
    product(m, n, k, left, right, RowMajor{chain, batch * m * n, n, bias});
}
