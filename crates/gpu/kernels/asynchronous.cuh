// Copies from global to shared memory that go on while the threads that asked for them do.
#pragma once
#include "base.cuh"

// Asks for N bytes, of which `bytes` are read; zeros follow. Both addresses are multiples of N.
template <int N>
__device__ inline void copy_async(void* to, const void* from, u32 bytes) {
    u32 at = (u32)__cvta_generic_to_shared(to);
    // 16 bytes pass by the first-level cache.
    if (N == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(bytes)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(at), "l"(from), "n"(N), "r"(bytes)
                     : "memory");
}

// What this thread has asked for is one group.
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until all but the last N groups of this thread are there.
template <int N>
__device__ inline void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
