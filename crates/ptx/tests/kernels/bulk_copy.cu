#include "common.cuh"
// y = 2 · x by pieces of 256 floats: each block takes one by a bulk copy, doubles it in shared
// memory and returns it by another. Sizes are multiples of 256.
extern "C" __global__ void __launch_bounds__(64) bulk_copy(const float* __restrict__ x, float* __restrict__ y) {
    __shared__ __align__(128) float piece[256];
    __shared__ __align__(8) u64 bar;
    u32 full = shared_address(&bar);
    if (threadIdx.x == 0) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(full) : "memory");
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], 1024;" ::"r"(full) : "memory");
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], 1024, [%2];"
                     ::"r"(shared_address(piece)), "l"(x + blockIdx.x * 256), "r"(full) : "memory");
    }
    __syncthreads();
    u32 done;
    do {
        asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], 0;\nselp.u32 %0, 1, 0, p;\n}"
                     : "=r"(done) : "r"(full) : "memory");
    } while (!done);
    for (int i = threadIdx.x; i < 256; i += 64) piece[i] *= 2;
#ifndef NO_PROXY_FENCE
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
    __syncthreads();
    if (threadIdx.x == 0) {
        asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], 1024;"
                     ::"l"(y + blockIdx.x * 256), "r"(shared_address(piece)) : "memory");
        asm volatile("cp.async.bulk.commit_group;" ::: "memory");
#ifndef NO_WAIT
        asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
#endif
    }
#ifdef OVERWRITE
    if (threadIdx.x == 32) piece[0] = 0;
#endif
}
