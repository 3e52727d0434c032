// c[batch, m, n] = a b + bias, both operands as they are stored.
#include "product.cuh"

// Of a stored matrix: distances between neighbours in m or n, and in k, one of which is 1.
template <class T>
struct Matrix {
    const T* p;
    u32 other, depth;
    __device__ bool along_k() const { return depth == 1; }
    __device__ float at(u32 i, u32 k) const { return get(p, i * other + k * depth); }
};

extern "C" __global__ void __launch_bounds__(256) matmul(
    const TypeA* a, const TypeB* b, const float* bias, u32 m, u32 n, u32 k, int ta, int tb,
    const Chain chain
) {
    u32 batch = blockIdx.z;
    Matrix<TypeA> left{a + (u64)batch * m * k, ta ? 1 : k, ta ? m : 1};
    Matrix<TypeB> right{b + (u64)batch * n * k, tb ? k : 1, tb ? 1 : n};
    product(m, n, k, left, right, RowMajor{chain, batch * m * n, n, bias});
}
