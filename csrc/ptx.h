// The instructions that C++ cannot say. tests/csrc/emulate.h defines the same functions for a CPU.
#pragma once
#include <cstdint>

namespace fastbsn {

#define FASTBSN_PTX __device__ __forceinline__

FASTBSN_PTX uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }

// Four (two) 8x8 matrices of bf16; lane l gives the address of row l % 8 of matrix l / 8.
FASTBSN_PTX void ldmatrix_x4(uint32_t (&r)[4], uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}
FASTBSN_PTX void ldmatrix_x2(uint32_t (&r)[2], uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(address) : "memory");
}

// d += a b: 16x16 by 16x8, bf16 with fp32 sums. Lane l holds d[row l / 4 (+ 8)][column l % 4 * 2 (+ 1)].
FASTBSN_PTX void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Asynchronous copy of 16 bytes to shared memory; zeros if not `valid`, and then `source` is not read.
FASTBSN_PTX void copy_async(uint32_t destination, const void* source, bool valid = true) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(destination), "l"(source), "r"(valid ? 16 : 0) : "memory");
}
FASTBSN_PTX void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }  // those issued since the last commit become a group
// Until at most PENDING of this thread's groups, the newest ones, are on their way.
template <int PENDING>
FASTBSN_PTX void wait_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

FASTBSN_PTX uint32_t pack_bf16(float low, float high) {
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}
FASTBSN_PTX void store_global(uint16_t* to, uint32_t value) { *reinterpret_cast<uint32_t*>(to) = value; }
FASTBSN_PTX uint16_t load_shared(uint32_t address) {
    uint16_t r;
    asm volatile("ld.shared.u16 %0, [%1];" : "=h"(r) : "r"(address) : "memory");
    return r;
}
FASTBSN_PTX void load_shared(float (&v)[2], uint32_t address) {
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v[0]), "=f"(v[1]) : "r"(address) : "memory");
}
FASTBSN_PTX void store_shared(uint32_t address, uint16_t value) { asm volatile("st.shared.u16 [%0], %1;" ::"r"(address), "h"(value) : "memory"); }
FASTBSN_PTX void store_shared(uint32_t address, uint32_t value) { asm volatile("st.shared.b32 [%0], %1;" ::"r"(address), "r"(value) : "memory"); }
FASTBSN_PTX void store_shared(uint32_t address, const uint32_t (&v)[4]) {
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(v[0]), "r"(v[1]), "r"(v[2]), "r"(v[3]) : "memory");
}

}  // namespace fastbsn
