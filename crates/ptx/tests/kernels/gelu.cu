#include "common.cuh"
// y = x · Φ(x), with erf, not its approximation by tanh; a loop over the grid.
extern "C" __global__ void gelu(const float* __restrict__ x, float* __restrict__ y, int n) {
#ifdef ONE_TOO_MANY
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i <= n; i += gridDim.x * blockDim.x) {
#else
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
#endif
        float v = x[i];
        y[i] = 0.5f * v * (1.0f + erff(v * 0.70710678f));
    }
}
