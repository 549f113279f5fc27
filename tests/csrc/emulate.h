// Runs a CUDA thread block on the CPU: every thread is a fiber, warp-wide instructions and barriers are rendezvous. One warp
// (group) at a time, drawn at random, runs as far ahead of the others as it can, so that a missing barrier shows. Shared
// memory starts as NaNs, and so is the target of an asynchronous copy from its issue until it is waited for.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <source_location>
#include <vector>

#include "../../csrc/tensor.h"
#include "emulate_memory.h"

#define FASTBSN_PTX inline

struct Index {
    unsigned x;
};
inline Index threadIdx, blockIdx, gridDim;
using std::min;

namespace emulate {

[[noreturn]] inline void fail(const char* what) {
    fprintf(stderr, "emulated thread %u: %s\n", threadIdx.x, what);
    abort();
}

struct Rendezvous {
    int members, kind = 0;
    std::vector<unsigned> waiting;
    std::vector<void*> arguments;  // by position in the group
};

struct Copy {
    uint32_t to;
    const void* from;
    int64_t products;  // of the issuing thread by then
    bool outlived = false;  // a wait for older ones
};

struct Fiber {
    ucontext_t context;
    jmp_buf jump;
    bool started = false;
    std::unique_ptr<uint8_t[]> stack;
};

// swapcontext costs two system calls, so it only starts a fiber; address sanitizer does not follow jumps between stacks.
inline void swap(Fiber& from, Fiber& to) {
#ifdef __SANITIZE_ADDRESS__
    swapcontext(&from.context, &to.context);
#else
    if (_setjmp(from.jump)) return;
    if (to.started) _longjmp(to.jump, 1);
    to.started = true;
    setcontext(&to.context);
#endif
}

struct Block {
    std::vector<uint8_t> shared;
    std::vector<Fiber> fibers;
    std::vector<std::vector<unsigned>> ready;  // by warp
    unsigned favourite = 0;
    std::vector<std::vector<std::vector<Copy>>> copies;  // by thread: groups, the last one open
    std::vector<int64_t> products;  // by thread
    Trace trace;
    uint32_t weights = 0;           // first byte of shared memory that holds weights
    std::vector<Rendezvous> warps, groups;  // 32 and 128 threads
    Rendezvous all, consumers;       // consumers: threads 128 to 383
    std::vector<uint8_t> unfenced;                // by word of shared memory: written, and not yet visible to wgmma
    std::vector<std::vector<uint32_t>> written;   // by thread: such words
    std::function<void()> body;
    Fiber scheduler;
    std::mt19937 random;
    unsigned alive;

    // Makes the next thread the current one; false if none is ready.
    bool pick() {
        const auto empty = [](const std::vector<unsigned>& threads) { return threads.empty(); };
        if (std::all_of(ready.begin(), ready.end(), empty)) return false;
        if (random() % 16384 == 0) favourite = random() % ready.size();
        while (ready[favourite].empty()) favourite = (random() % 64 ? favourite / 4 * 4 + random() % 4 : random()) % ready.size();
        threadIdx.x = ready[favourite].back();
        ready[favourite].pop_back();
        return true;
    }
};
inline Block* block;

inline void yield() {
    swap(block->fibers[threadIdx.x], block->scheduler);
}

// Waits until every member has arrived with the same kind of operation; the last one performs it for all.
template <class F>
void meet(Rendezvous& r, unsigned position, int kind, void* argument, F perform) {
    if (!r.waiting.empty() && r.kind != kind) fail("threads at different instructions that are for all of them");
    r.kind = kind, r.arguments[position] = argument;
    block->trace.synchronised(threadIdx.x);
    r.waiting.push_back(threadIdx.x);
    if (int(r.waiting.size()) < r.members) return yield();
    perform(r.arguments);
    for (unsigned thread : r.waiting)
        if (thread != threadIdx.x) block->ready[thread / 32].push_back(thread);
    r.waiting.clear();
}

template <class T>
T& at(uint32_t address) {
    if (address % sizeof(T) || address + sizeof(T) > block->shared.size()) fail("shared memory: misaligned or out of range");
    return *reinterpret_cast<T*>(&block->shared[address]);
}
struct alignas(16) Octet {
    uint16_t v[8];
};

template <class T>
void write(uint32_t address, const T& value) {
    at<T>(address) = value;
    for (uint32_t word = address / 4; word < (address + sizeof(T) + 3) / 4; ++word) {
        if (!block->unfenced[word]) block->written[threadIdx.x].push_back(word);
        block->unfenced[word] = 1;
    }
}

inline void entry() {
    block->body();
    --block->alive;
    yield();
}

// One thread block of `threads` threads with `bytes` of shared memory; `body` is the kernel.
inline void run(unsigned index, unsigned grid, unsigned threads, size_t bytes, uint32_t weights, unsigned seed, std::function<void()> body) {
    constexpr size_t STACK = 256 << 10;
    Block b;
    block = &b;
    b.shared.assign(bytes, 0xff), b.weights = weights, b.body = std::move(body), b.random.seed(seed), b.alive = threads;
    b.ready.resize(threads / 32), b.fibers.resize(threads), b.copies.assign(threads, {{}}), b.products.resize(threads), b.trace.threads.resize(threads), b.scheduler.started = true;
    b.warps.assign(threads / 32, {32, 0, {}, std::vector<void*>(32)});
    b.groups.assign(threads / 128, {128, 0, {}, std::vector<void*>(128)});
    b.all = {int(threads), 0, {}, std::vector<void*>(threads)};
    b.consumers = {256, 0, {}, std::vector<void*>(256)};
    b.unfenced.resize(bytes / 4), b.written.resize(threads);
    for (unsigned thread = 0; thread < threads; ++thread) {
        Fiber& fiber = b.fibers[thread];
        getcontext(&fiber.context);
        fiber.stack = std::make_unique_for_overwrite<uint8_t[]>(STACK);
        fiber.context.uc_stack.ss_sp = fiber.stack.get(), fiber.context.uc_stack.ss_size = STACK;
        makecontext(&fiber.context, entry, 0);
        b.ready[thread / 32].push_back(thread);
    }
    blockIdx.x = index, gridDim.x = grid;
    while (b.pick()) swap(b.scheduler, b.fibers[threadIdx.x]);
    if (b.alive) fail("deadlock: what some threads wait for, the others never do");
    b.trace.finish();
    block = nullptr;
}

}  // namespace emulate

inline void __syncthreads(std::source_location here = std::source_location::current()) {
    emulate::meet(emulate::block->all, threadIdx.x, int(here.line()), nullptr, [](auto&) {});
}

inline void __syncwarp(std::source_location here = std::source_location::current()) {
    emulate::meet(emulate::block->warps[threadIdx.x / 32], threadIdx.x % 32, int(here.line()), nullptr, [](auto&) {});
}

namespace fastbsn {

inline uint32_t shared_address(const void* p) { return uint32_t(static_cast<const uint8_t*>(p) - emulate::block->shared.data()); }

template <int COUNT>
void ldmatrix(uint32_t (&r)[COUNT], uint32_t address) {
    struct Lane {
        uint32_t* r;
        uint32_t address;
    } mine{r, address};
    emulate::meet(emulate::block->warps[threadIdx.x / 32], threadIdx.x % 32, COUNT, &mine, [](std::vector<void*>& lanes) {
        for (int matrix = 0; matrix < COUNT; ++matrix) {
            std::vector<emulate::Access> rows;
            for (int row = 0; row < 8; ++row) rows.push_back({static_cast<Lane*>(lanes[matrix * 8 + row])->address, 16});
            const auto [least, more] = emulate::wavefronts(rows);
            emulate::counts.matrices += least, emulate::counts.matrix_conflicts += more;
        }
        for (int lane = 0; lane < 32; ++lane)
            for (int matrix = 0; matrix < COUNT; ++matrix) {
                const emulate::Octet& row = emulate::at<emulate::Octet>(static_cast<Lane*>(lanes[matrix * 8 + lane / 4])->address);
                memcpy(&static_cast<Lane*>(lanes[lane])->r[matrix], &row.v[lane % 4 * 2], 4);
            }
    });
}
inline void ldmatrix_x4(uint32_t (&r)[4], uint32_t address) { ldmatrix<4>(r, address); }
inline void ldmatrix_x2(uint32_t (&r)[2], uint32_t address) { ldmatrix<2>(r, address); }

inline void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    struct Lane {
        float* d;
        const uint32_t* a;
        uint32_t b[2];
    } mine{d, a, {b0, b1}};
    ++emulate::block->products[threadIdx.x];
    emulate::meet(emulate::block->warps[threadIdx.x / 32], threadIdx.x % 32, 3, &mine, [](std::vector<void*>& lanes) {
        float a[16][16], b[16][8], d[16][8];
        const auto each = [&](auto f) {
            for (int lane = 0; lane < 32; ++lane)
                for (int e = 0; e < 4; ++e) f(d[lane / 4 + e / 2 * 8][lane % 4 * 2 + e % 2], static_cast<Lane*>(lanes[lane])->d[e]);
        };
        for (int lane = 0; lane < 32; ++lane) {
            const Lane& l = *static_cast<Lane*>(lanes[lane]);
            for (int r = 0; r < 4; ++r)
                for (int i = 0; i < 2; ++i) {
                    a[lane / 4 + r % 2 * 8][lane % 4 * 2 + r / 2 * 8 + i] = from_bf16(uint16_t(l.a[r] >> 16 * i));
                    if (r < 2) b[lane % 4 * 2 + r * 8 + i][lane / 4] = from_bf16(uint16_t(l.b[r] >> 16 * i));
                }
        }
        each([](float& matrix, float& mine) { matrix = mine; });
        for (int m = 0; m < 16; ++m)
            for (int k = 0; k < 16; ++k)
                for (int n = 0; n < 8; ++n) d[m][n] += a[m][k] * b[k][n];
        each([](float& matrix, float& mine) { mine = matrix; });
    });
}

inline void copy_async(uint32_t destination, const void* source, bool valid = true) {
    const emulate::Copy copy{destination, valid ? source : nullptr, emulate::block->products[threadIdx.x]};
    for (uint16_t& v : emulate::at<emulate::Octet>(destination).v) v = 0x7fc0;
    emulate::block->copies[threadIdx.x].back().push_back(copy);
    emulate::block->trace.add(threadIdx.x, emulate::COPY_TO, destination, 16);
    if (valid) emulate::block->trace.add(threadIdx.x, emulate::COPY_FROM, reinterpret_cast<uint64_t>(source), 16);
}
inline void commit_copies() { emulate::block->copies[threadIdx.x].emplace_back(); }
template <int PENDING>
void wait_copies() {
    std::vector<std::vector<emulate::Copy>>& groups = emulate::block->copies[threadIdx.x];
    const auto end = groups.end() - std::min<size_t>(groups.size(), PENDING + 1);
    for (auto group = groups.begin(); group != end; ++group)
        for (const emulate::Copy& c : *group) {
            emulate::write(c.to, c.from ? *static_cast<const emulate::Octet*>(c.from) : emulate::Octet{});
            if (c.to >= emulate::block->weights) continue;
            ++emulate::counts.row_copies;
            emulate::counts.rows_at_once += c.products == emulate::block->products[threadIdx.x];
        }
    groups.erase(groups.begin(), end);
    for (std::vector<emulate::Copy>& group : groups)
        for (emulate::Copy& c : group) {
            emulate::counts.rows_outlived += c.to < emulate::block->weights && !c.outlived;
            c.outlived = true;
        }
    emulate::block->trace.synchronised(threadIdx.x);
}

inline uint32_t pack_bf16(float low, float high) { return to_bf16(low) | uint32_t(to_bf16(high)) << 16; }
inline uint16_t load_shared(uint32_t address) {
    emulate::block->trace.add(threadIdx.x, emulate::LOAD, address, 2);
    return emulate::at<uint16_t>(address);
}
inline void load_shared(float (&v)[2], uint32_t address) {
    emulate::block->trace.add(threadIdx.x, emulate::LOAD, address, 8);
    if (address % 8) emulate::fail("shared memory: misaligned");
    for (int i = 0; i < 2; ++i) v[i] = emulate::at<float>(address + 4 * i);
}
template <class T>
void store_shared(uint32_t address, T value) {
    emulate::block->trace.add(threadIdx.x, emulate::STORE, address, sizeof(T));
    emulate::write(address, value);
}
inline void store_shared(uint32_t address, const uint32_t (&v)[4]) {
    emulate::Octet octet;
    memcpy(&octet, v, 16);
    store_shared(address, octet);
}
inline void store_global(uint16_t* to, uint32_t value) {
    emulate::block->trace.add(threadIdx.x, emulate::STORE_GLOBAL, reinterpret_cast<uint64_t>(to), 4);
    memcpy(to, &value, 4);
}

}  // namespace fastbsn
