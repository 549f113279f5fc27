// Instructions of sm_90a that only the module of the teacher uses. tests/csrc/emulate_mdc.h defines the same functions for a CPU.
#pragma once
#include "ptx_hopper.h"

namespace fastbsn {

// Registers of a thread, for the rest of the kernel: of a warp group that gives some away, or takes them. All its warps do it.
template <int REGISTERS>
FASTBSN_PTX void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}
template <int REGISTERS>
FASTBSN_PTX void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

FASTBSN_PTX uint32_t thread_index() {
    uint32_t r;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(r));
    return r;
}
FASTBSN_PTX void sync_warp() { __syncwarp(); }
FASTBSN_PTX void sync_group(int group) { asm volatile("bar.sync %0, 128;" ::"r"(group + 2) : "memory"); }  // of the groups 0 and 1 that compute

FASTBSN_PTX float relu(float x) {  // a NaN stays one
    float r;
    asm("max.NaN.f32 %0, %1, 0f00000000;" : "=f"(r) : "f"(x));
    return r;
}
// Two values, rounded to nearest even in float16 (HALF) or bfloat16; with RELU, negative ones become 0 and a NaN stays one.
template <bool HALF, bool RELU>
FASTBSN_PTX uint32_t pack(float low, float high) {
    uint32_t r;
    if constexpr (HALF && RELU) asm("cvt.rn.relu.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    else if constexpr (HALF) asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    else if constexpr (RELU) asm("cvt.rn.relu.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    else asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}

FASTBSN_PTX uint32_t load_word(uint32_t address) {
    uint32_t r;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(r) : "r"(address) : "memory");
    return r;
}
FASTBSN_PTX void load_pair(float& a, float& b, uint32_t address) {
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(a), "=f"(b) : "r"(address) : "memory");
}
// 16 bytes from shared to global memory.
FASTBSN_PTX void copy_out(uint16_t* to, uint32_t address) {
    uint4 v;
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address) : "memory");
    *reinterpret_cast<uint4*>(to) = v;
}

// d += a b: 64x16 by 16x96, of float16 (HALF) or bfloat16, with fp32 sums; fragments as in wgmma() of ptx_hopper.h.
template <bool HALF>
FASTBSN_PTX void multiply(float (&d)[12][4], uint64_t a, uint64_t b);

#define F(i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define SUMS F(0), F(1), F(2), F(3), F(4), F(5), F(6), F(7), F(8), F(9), F(10), F(11)
#define NAMES                                                                                                                            \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, "  \
    "%28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47}"
#define FASTBSN_MULTIPLY(HALF, TYPE)                                                                                                     \
    template <>                                                                                                                          \
    FASTBSN_PTX void multiply<HALF>(float (&d)[12][4], uint64_t a, uint64_t b) {                                                         \
        asm volatile("wgmma.mma_async.sync.aligned.m64n96k16.f32." TYPE "." TYPE " " NAMES ", %48, %49, 1, 1, 1, 0, 0;"                   \
                     : SUMS                                                                                                              \
                     : "l"(a), "l"(b));                                                                                                  \
    }
FASTBSN_MULTIPLY(true, "f16")
FASTBSN_MULTIPLY(false, "bf16")
#undef FASTBSN_MULTIPLY
#undef NAMES
#undef SUMS
#undef F

}  // namespace fastbsn
