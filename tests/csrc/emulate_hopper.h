// sm_90a on the emulated GPU: mbarriers, bulk copies, wgmma. A bulk copy lands a random while after its issue; wgmma
// reads shared memory only when it is waited for, and refuses what was written without fence_async since.
#pragma once
#include <map>

#include "emulate.h"

namespace emulate {

struct Bulk {
    uint32_t to;
    const void* from;
    uint32_t bytes;
};

struct Barrier {
    int arrivals, missing, parity = 0;
    int64_t bytes = 0;  // still expected in this phase
    std::vector<Bulk> copies;
    std::vector<unsigned> waiting;
};
inline std::map<uint32_t, Barrier> barriers;

inline Barrier& barrier(uint32_t address) {
    const auto found = barriers.find(address);
    if (found == barriers.end()) fail("mbarrier used before its initialisation");
    return found->second;
}

inline void complete_if_done(Barrier& b) {
    if (b.missing || b.bytes) return;
    b.parity ^= 1, b.missing = b.arrivals;
    for (unsigned thread : b.waiting) block->ready[thread / 32].push_back(thread);
    b.waiting.clear();
}

// Some of the copies that are on their way, in any order.
inline void land(Barrier& b) {
    for (size_t i = b.copies.size(); i-- > 0;) {
        if (block->random() % 4) continue;
        const Bulk c = b.copies[i];
        b.copies.erase(b.copies.begin() + ptrdiff_t(i));
        memcpy(&block->shared[c.to], c.from, c.bytes);
        b.bytes -= c.bytes;
    }
    complete_if_done(b);
}

struct Multiply {
    float* d;
    uint64_t a, b;
    int tiles;
    bool half = false;  // float16, else bfloat16
};
// By thread: groups of wgmma committed and not yet waited for; the last one is open.
inline std::vector<std::vector<std::vector<Multiply>>> pending;

inline const uint16_t* operand_row(uint64_t descriptor, int row, int half) {
    const auto field = [&](int shift) { return int(descriptor >> shift & 0x3fff) << 4; };
    const uint32_t address = field(0) + half * field(16) + row / 8 * field(32) + row % 8 * 16;
    for (int word = 0; word < 4; ++word)
        if (address + 16 <= block->shared.size() && block->unfenced[address / 4 + word]) fail("wgmma reads what no fence made visible");
    return at<Octet>(address).v;
}

// Thread t of the group holds rows 16 (t / 32) + t % 32 / 4 (+ 8) and columns 8 i + t % 4 * 2 (+ 1).
inline void multiply(const std::vector<Multiply>& threads) {
    const auto [unused, a, b, tiles, half] = threads[0];
    for (const Multiply& m : threads)
        if (m.a != a || m.b != b || m.tiles != tiles || m.half != half) fail("wgmma with descriptors that differ within a warp group");
    float x[64][16], y[96][16];
    const auto read = [half](float(&row)[16], uint64_t descriptor, int index) {
        for (int k = 0; k < 16; ++k) {
            const uint16_t bits = operand_row(descriptor, index, k / 8)[k % 8];
            row[k] = half ? fastbsn::from_half(bits) : fastbsn::from_bf16(bits);
        }
    };
    for (int row = 0; row < 64; ++row) read(x[row], a, row);
    for (int column = 0; column < 8 * tiles; ++column) read(y[column], b, column);
    for (int t = 0; t < 128; ++t)
        for (int i = 0; i < tiles; ++i)
            for (int e = 0; e < 4; ++e) {
                float& d = threads[t].d[4 * i + e];
                for (int k = 0; k < 16; ++k) d += x[t / 32 * 16 + t % 32 / 4 + e / 2 * 8][k] * y[8 * i + t % 4 * 2 + e % 2][k];
            }
}

inline void reset_hopper() {
    barriers.clear();
    pending.assign(384, {{}});
}

}  // namespace emulate

namespace fastbsn {

inline void barrier_init(uint32_t barrier, int arrivals) {
    emulate::at<uint64_t>(barrier) = 0;  // aligned and inside
    if (!emulate::barriers.emplace(barrier, emulate::Barrier{arrivals, arrivals, 0, 0, {}, {}}).second) emulate::fail("mbarrier initialised twice");
}
inline void barrier_arrive(uint32_t barrier) {
    emulate::Barrier& b = emulate::barrier(barrier);
    if (--b.missing < 0) emulate::fail("too many arrivals at an mbarrier");
    emulate::complete_if_done(b);
}
inline void barrier_expect(uint32_t barrier, uint32_t bytes) {
    emulate::barrier(barrier).bytes += bytes;
    barrier_arrive(barrier);
}
inline void barrier_wait(uint32_t barrier, int parity) {
    emulate::Barrier& b = emulate::barrier(barrier);
    emulate::block->trace.synchronised(threadIdx.x);
    while (b.parity == parity) {
        const bool poll = !b.copies.empty();
        if (poll) emulate::land(b);
        if (b.parity != parity) break;
        (poll ? emulate::block->ready[threadIdx.x / 32] : b.waiting).push_back(threadIdx.x);
        emulate::yield();
    }
}
inline void copy_bulk(uint32_t destination, const void* source, uint32_t bytes, uint32_t barrier) {
    emulate::Barrier& b = emulate::barrier(barrier);
    if (destination % 16 || bytes % 16 || reinterpret_cast<uintptr_t>(source) % 16) emulate::fail("bulk copy is not aligned to 16 bytes");
    if (destination + bytes > emulate::block->shared.size()) emulate::fail("bulk copy out of range");
    memset(&emulate::block->shared[destination], 0xff, bytes);
    b.copies.push_back({destination, source, bytes});
    for (unsigned thread : b.waiting) emulate::block->ready[thread / 32].push_back(thread);  // to poll
    b.waiting.clear();
}
inline void fence_async() {
    for (uint32_t word : emulate::block->written[threadIdx.x]) emulate::block->unfenced[word] = 0;
    emulate::block->written[threadIdx.x].clear();
}
inline void sync_consumers() {
    emulate::meet(emulate::block->consumers, threadIdx.x - 128, 0, nullptr, [](auto&) {});
}

FASTBSN_FN uint64_t descriptor(uint32_t address, int k_stride, int row_stride) {
    return uint64_t((address & 0x3ffff) >> 4) | uint64_t(k_stride >> 4) << 16 | uint64_t(row_stride >> 4) << 32;
}
template <int MT, int NT>
void pin(float (&)[MT][NT][4]) {}
inline void wgmma_fence() {}
inline void wgmma_commit() { emulate::pending[threadIdx.x].emplace_back(); }
template <int NT>
void wgmma(float (&d)[NT][4], uint64_t a, uint64_t b) {
    emulate::pending[threadIdx.x].back().push_back({&d[0][0], a, b, NT, false});
}
template <int PENDING>
void wgmma_wait() {
    std::vector<std::vector<emulate::Multiply>>& mine = emulate::pending[threadIdx.x];
    emulate::meet(emulate::block->groups[threadIdx.x / 128], threadIdx.x % 128, PENDING, &mine, [](std::vector<void*>& threads) {
        using Groups = std::vector<std::vector<emulate::Multiply>>;
        const auto groups = [&](int t) -> Groups& { return *static_cast<Groups*>(threads[t]); };
        while (int(groups(0).size()) - 1 > PENDING) {
            for (size_t i = 0; i < groups(0)[0].size(); ++i) {
                std::vector<emulate::Multiply> together;
                for (int t = 0; t < 128; ++t) together.push_back(groups(t).at(0).at(i));
                emulate::multiply(together);
            }
            for (int t = 0; t < 128; ++t) groups(t).erase(groups(t).begin());
        }
    });
}

}  // namespace fastbsn
