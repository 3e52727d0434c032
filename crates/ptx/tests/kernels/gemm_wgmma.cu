#include "common.cuh"
// C[m, n] = A[m, k] · B[n, k]ᵀ with f32 results, for Hopper: warp 4 asks for tiles by TMA with a
// 128-byte swizzle, a group of four warps multiplies them by wgmma m64n64; two stages, each with an
// mbarrier for "full" and one for "empty". Sizes are any; what lies beyond the tensors is zero.
// With ACROSS, B is stored as [k, n].
#if defined(TF32)
#define SHAPE "m64n64k8.f32.tf32.tf32"
#define MAJORS ""
#define PER_ROW 32
#elif defined(E4M3)
#define SHAPE "m64n64k32.f32.e4m3.e4m3"
#define MAJORS ""
#define PER_ROW 128
#else
#define SHAPE "m64n64k16.f32.bf16.bf16"
#define PER_ROW 64
#ifdef ACROSS
#define MAJORS ", 0, 1"
#else
#define MAJORS ", 0, 0"
#endif
#endif
struct __align__(64) TensorMap { u64 opaque[16]; };
#define TILE 64
#define STAGES 2
#define TILE_BYTES (TILE * 128)
#ifdef WRONG_BYTES
#define EXPECTED (2 * TILE_BYTES - 128)
#else
#define EXPECTED (2 * TILE_BYTES)
#endif

__device__ __forceinline__ void barrier_init(u32 bar, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count) : "memory");
}
__device__ __forceinline__ void barrier_arrive(u32 bar) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
__device__ __forceinline__ void barrier_expect(u32 bar, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}
__device__ __forceinline__ void barrier_wait(u32 bar, u32 parity) {
    u32 done;
    do {
        asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                     : "=r"(done) : "r"(bar), "r"(parity) : "memory");
    } while (!done);
}
__device__ __forceinline__ void load_tile(void* to, const TensorMap* map, u32 bar, int x, int y) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];"
                 ::"r"(shared_address(to)), "l"(map), "r"(bar), "r"(x), "r"(y) : "memory");
}
// Rows of 128 bytes with the 128-byte swizzle; groups of eight rows are 1024 bytes apart.
__device__ __forceinline__ u64 descriptor(u32 address) {
    return (u64)((address & 0x3ffff) >> 4) | (u64)1 << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}
__device__ __forceinline__ void multiply(float (&d)[32], u64 a, u64 b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned." SHAPE " "
        "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31},"
        " %32, %33, 1, 1, 1" MAJORS ";"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]),
          "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]),
          "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
          "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
        : "l"(a), "l"(b));
}

extern "C" __global__ void __launch_bounds__(160, 1)
gemm_wgmma(const __grid_constant__ TensorMap map_a, const __grid_constant__ TensorMap map_b, float* __restrict__ c, int m, int n,
           int k) {
    __shared__ __align__(1024) u8 sa[STAGES][TILE_BYTES];
    __shared__ __align__(1024) u8 sb[STAGES][TILE_BYTES];
    __shared__ __align__(8) u64 full[STAGES], empty[STAGES];
    int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5;
    if (thread == 0) {
        for (int s = 0; s < STAGES; s++) barrier_init(shared_address(&full[s]), 1), barrier_init(shared_address(&empty[s]), 4);
#ifndef NO_PROXY_FENCE
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
    }
    __syncthreads();
    int steps = (k + PER_ROW - 1) / PER_ROW;
    if (warp == 4) {
        if (lane == 0)
            for (int step = 0; step < steps; step++) {
                int s = step % STAGES;
                u32 bar = shared_address(&full[s]);
#ifndef NO_EMPTY_WAIT
                if (step >= STAGES) barrier_wait(shared_address(&empty[s]), (step / STAGES - 1) & 1);
#endif
                barrier_expect(bar, EXPECTED);
                load_tile(sa[s], &map_a, bar, step * PER_ROW, blockIdx.y * TILE);
#ifdef ACROSS
                load_tile(sb[s], &map_b, bar, blockIdx.x * TILE, step * PER_ROW);
#else
                load_tile(sb[s], &map_b, bar, step * PER_ROW, blockIdx.x * TILE);
#endif
            }
        return;
    }
    float sum[32];
#pragma unroll
    for (int i = 0; i < 32; i++) sum[i] = 0;
    for (int step = 0; step < steps; step++) {
        int s = step % STAGES;
#ifdef WRONG_PHASE
        barrier_wait(shared_address(&full[s]), (step / STAGES + 1) & 1);
#elif !defined(NO_FULL_WAIT)
        barrier_wait(shared_address(&full[s]), step / STAGES & 1);
#endif
#ifndef NO_WGMMA_FENCE
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
#pragma unroll
        for (int part = 0; part < 4; part++) {
#ifdef ACROSS
            int next = 16 * 128;
#else
            int next = 32;
#endif
            multiply(sum, descriptor(shared_address(sa[s]) + part * 32), descriptor(shared_address(sb[s]) + part * next));
        }
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#ifdef EARLY_RELEASE
        if (lane == 0) barrier_arrive(shared_address(&empty[s]));
#endif
#ifndef NO_WGMMA_WAIT
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#endif
#ifndef EARLY_RELEASE
        if (lane == 0) barrier_arrive(shared_address(&empty[s]));
#endif
    }
#pragma unroll
    for (int i = 0; i < 32; i++) {
        int row = blockIdx.y * TILE + warp * 16 + (lane >> 2) + (i >> 1 & 1) * 8;
        int column = blockIdx.x * TILE + (i >> 2) * 8 + (lane & 3) * 2 + (i & 1);
        if (row < m && column < n) c[(u64)row * n + column] = sum[i];
    }
}
