// The instructions of csrc/ptx_mdc.h on the emulated GPU.
#pragma once
#include "emulate_hopper.h"

namespace fastbsn {

template <int REGISTERS>
void give_registers() {
    static_assert(REGISTERS % 8 == 0 && REGISTERS >= 24);
}
template <int REGISTERS>
void take_registers() {
    static_assert(REGISTERS % 8 == 0 && REGISTERS <= 256);
}
inline uint32_t thread_index() { return threadIdx.x; }
inline void sync_warp() {
    emulate::meet(emulate::block->warps[threadIdx.x / 32], threadIdx.x % 32, -1, nullptr, [](auto&) {});
}
inline void sync_group(int group) {
    if (int(threadIdx.x / 128) != group + 1) emulate::fail("a barrier of another group");
    emulate::meet(emulate::block->groups[threadIdx.x / 128], threadIdx.x % 128, -1, nullptr, [](auto&) {});
}
inline float relu(float x) { return x < 0 ? 0 : x; }
template <bool HALF, bool RELU>
uint32_t pack(float low, float high) {
    if (RELU) low = relu(low), high = relu(high);
    return HALF ? to_half(low) | uint32_t(to_half(high)) << 16 : to_bf16(low) | uint32_t(to_bf16(high)) << 16;
}
template <class T>
T load(uint32_t address) {
    emulate::block->trace.add(threadIdx.x, emulate::LOAD, address, sizeof(T));
    return emulate::at<T>(address);
}
inline uint32_t load_word(uint32_t address) { return load<uint32_t>(address); }
inline void load_pair(float& a, float& b, uint32_t address) {
    const uint64_t pair = load<uint64_t>(address);
    memcpy(&a, &pair, 4), memcpy(&b, reinterpret_cast<const char*>(&pair) + 4, 4);
}
inline void copy_out(uint16_t* to, uint32_t address) {
    const emulate::Octet octet = load<emulate::Octet>(address);
    if (reinterpret_cast<uintptr_t>(to) % 16) emulate::fail("a store that is not aligned to 16 bytes");
    emulate::block->trace.add(threadIdx.x, emulate::STORE_GLOBAL, reinterpret_cast<uint64_t>(to), 16);
    memcpy(to, &octet, 16);
}
template <bool HALF>
void multiply(float (&d)[12][4], uint64_t a, uint64_t b) {
    emulate::pending[threadIdx.x].back().push_back({&d[0][0], a, b, 12, HALF});
}

}  // namespace fastbsn
