// Small kernels with a fault each, to see that the emulated GPU finds it; for tests/csrc/test_emulator.py.
#include "emulate_hopper.h"

using namespace fastbsn;

static void run(unsigned threads, std::function<void()> body, unsigned seed = 0) {
    emulate::reset_hopper();
    emulate::counts = {};
    emulate::run(0, 1, threads, 8192, 0, seed, body);
}

static void one_thread_leaves_before_the_barrier() {
    run(64, [] {
        if (threadIdx.x != 7) __syncthreads();
    });
}

static void two_barriers_in_a_branch() {
    run(64, [] {
        if (threadIdx.x < 32) __syncthreads();
        else
            __syncthreads();
    });
}

// Every thread stores a word, `stride` words from that of its neighbour.
static void strided_stores(int stride) {
    run(32, [=] { store_shared(4 * stride * threadIdx.x, threadIdx.x); });
    printf("%d wavefronts, %d more\n", int(emulate::counts.wavefronts), int(emulate::counts.conflicts));
}

static void strided_copies(int stride) {
    alignas(32) static uint8_t memory[32 * 64];
    run(32, [=] {
        copy_async(16 * threadIdx.x, memory + stride * threadIdx.x);
        commit_copies();
        wait_copies<0>();
    });
    printf("%d sectors, %d more\n", int(emulate::counts.sectors), int(emulate::counts.uncoalesced));
}

// How often a thread that polls a barrier once, without waiting, finds what was copied there.
static void a_copy_takes_its_time() {
    alignas(16) static uint8_t memory[16] = {1};
    int found = 0;
    for (unsigned seed = 0; seed < 200; ++seed)
        run(
            32,
            [&] {
                if (threadIdx.x > 0) return;
                barrier_init(64, 1);
                barrier_expect(64, 16);
                copy_bulk(0, memory, 16, 64);
                emulate::land(emulate::barrier(64));
                found += emulate::block->shared[0] == 1;
                barrier_wait(64, 0);
                if (emulate::block->shared[0] != 1) emulate::fail("waited for, and not there");
            },
            seed);
    printf("%s\n", found > 20 && found < 180 ? "sometimes" : "always or never");
}

int main(int, char** argv) {
    const std::string fault = argv[1];
    if (fault == "missing") one_thread_leaves_before_the_barrier();
    if (fault == "different") two_barriers_in_a_branch();
    if (fault == "stores") for (int stride : {1, 2, 32}) strided_stores(stride);
    if (fault == "copies") for (int stride : {16, 32, 64}) strided_copies(stride);
    if (fault == "late") a_copy_takes_its_time();
    return 0;
}
