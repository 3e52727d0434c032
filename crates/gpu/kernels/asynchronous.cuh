// Copies from global to shared memory that go on while the threads that asked for them do.
#pragma once
#include "base.cuh"

// Asks for N bytes, of which `bytes` are read; zeros follow. Both addresses are multiples of N, and
// the first one is of shared memory.
template <int N>
__device__ inline void copy_async(u32 to, const void* from, u32 bytes) {
    // 16 bytes pass by the first-level cache.
    if (N == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(from), "n"(N), "r"(bytes)
                     : "memory");
}

// What this thread has asked for is one group.
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until all but the last N groups of this thread are there.
template <int N>
__device__ inline void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
