// What Tensor Cores multiply: elements of BYTES, which LEFT and RIGHT are the formats of. With HALF
// that is bf16 or f16 on both sides; else tf32, stored as f32, or e4m3 and e5m2 in any combination.
// Chunks are 16 bytes, and a product takes two of them of k.
#pragma once
#include "base.cuh"

#ifdef HALF
#define BYTES 2
#define LEFT HALF
#define RIGHT HALF
typedef u16 Unit;
#define PRODUCT_SHAPE "m16n8k16"
#elif BYTES == 1
typedef u8 Unit;
#define PRODUCT_SHAPE "m16n8k32"
#else
typedef u32 Unit;
#define PRODUCT_SHAPE "m16n8k8"
#endif

#define NAME_OF(x) #x
#define TEXT_OF(x) NAME_OF(x)

// Four matrices of 8 rows of a chunk: lane l has the shared address of row l % 8 of matrix l / 8.
__device__ inline void load_matrices(u32* r, u32 at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

// The same, each turned as if elements had 16 bits.
__device__ inline void load_turned(u32* r, u32 at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

// d += a b for 16 rows, 8 columns and 32 bytes of k.
__device__ inline void multiply(float* d, const u32* a, const u32* b) {
    asm volatile("mma.sync.aligned." PRODUCT_SHAPE ".row.col.f32." TEXT_OF(LEFT) "." TEXT_OF(
                     RIGHT
    ) ".f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
