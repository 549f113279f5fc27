// Instructions of sm_90a. tests/csrc/emulate_hopper.h defines the same functions for a CPU.
#pragma once
#include "ptx.h"

namespace fastbsn {

FASTBSN_PTX void barrier_init(uint32_t barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
FASTBSN_PTX void barrier_arrive(uint32_t barrier) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory"); }
FASTBSN_PTX void barrier_expect(uint32_t barrier, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
// Until the phase of this parity is complete; a fresh barrier counts as having completed parity 1.
FASTBSN_PTX void barrier_wait(uint32_t barrier, int parity) {
    asm volatile(
        "{\n.reg .pred done;\nagain:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@!done bra again;\n}" ::"r"(barrier), "r"(parity)
        : "memory");
}

// Contiguous bytes to shared memory; they count towards the barrier's expected bytes.
FASTBSN_PTX void copy_bulk(uint32_t destination, const void* source, uint32_t bytes, uint32_t barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(destination), "l"(source),
                 "r"(bytes), "r"(barrier)
                 : "memory");
}

// Makes this thread's ordinary writes to shared memory visible to wgmma and bulk copies, once followed by a barrier.
FASTBSN_PTX void fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Threads 128 to 383 only.
FASTBSN_PTX void sync_consumers() { asm volatile("bar.sync 1, 256;" ::: "memory"); }

// Operand in shared memory as 8-row, 16-byte core matrices without swizzle: `k_stride` bytes between the two halves of K,
// `row_stride` bytes between groups of 8 rows.
FASTBSN_FN uint64_t descriptor(uint32_t address, int k_stride, int row_stride) {
    return uint64_t((address & 0x3ffff) >> 4) | uint64_t(k_stride >> 4) << 16 | uint64_t(row_stride >> 4) << 32;
}

// Keeps the compiler from moving accesses to sums across: wgmma works on them behind its back.
template <int MT, int NT>
FASTBSN_PTX void pin(float (&sum)[MT][NT][4]) {
#pragma unroll
    for (int j = 0; j < MT; ++j)
#pragma unroll
        for (int i = 0; i < NT; ++i)
#pragma unroll
            for (int e = 0; e < 4; ++e) asm volatile("" : "+f"(sum[j][i][e])::"memory");
}

FASTBSN_PTX void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
FASTBSN_PTX void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int PENDING>
FASTBSN_PTX void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

// d += a b: 64x16 by 16x(8 NT). Warp w of the group holds rows 16 w to 16 w + 15, each fragment d[i] as in mma().
template <int NT>
FASTBSN_PTX void wgmma(float (&d)[NT][4], uint64_t a, uint64_t b);

#define F(i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define R0 "%0, %1, %2, %3"
#define R1 R0 ", %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define R2 R1 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define R3 R2 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define R4 R3 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define FASTBSN_WGMMA(NT, N, REGISTERS, A, B, ...)                                                                                       \
    template <>                                                                                                                          \
    FASTBSN_PTX void wgmma<NT>(float (&d)[NT][4], uint64_t a, uint64_t b) {                                                              \
        asm volatile("wgmma.mma_async.sync.aligned.m64n" N "k16.f32.bf16.bf16 {" REGISTERS "}, %" A ", %" B ", 1, 1, 1, 0, 0;"            \
                     : __VA_ARGS__                                                                                                       \
                     : "l"(a), "l"(b));                                                                                                  \
    }
FASTBSN_WGMMA(1, "8", R0, "4", "5", F(0))
FASTBSN_WGMMA(4, "32", R1, "16", "17", F(0), F(1), F(2), F(3))
FASTBSN_WGMMA(6, "48", R2, "24", "25", F(0), F(1), F(2), F(3), F(4), F(5))
FASTBSN_WGMMA(8, "64", R3, "32", "33", F(0), F(1), F(2), F(3), F(4), F(5), F(6), F(7))
FASTBSN_WGMMA(12, "96", R4, "48", "49", F(0), F(1), F(2), F(3), F(4), F(5), F(6), F(7), F(8), F(9), F(10), F(11))
#undef FASTBSN_WGMMA
#undef F
#undef R0
#undef R1
#undef R2
#undef R3
#undef R4

}  // namespace fastbsn
