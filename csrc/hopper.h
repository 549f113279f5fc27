// A block on sm_90a: wgmma reads the rings in shared memory directly, a tap being only another start address.
//
// Three warp groups. Group 0 produces: its first thread streams weights (bulk copies, four chunks), its other three warps
// bring the input rows of the next step. Groups 1 and 2 compute, each 2 or 4 tiles of 64 pixels with all channels.
#pragma once
#include "epilogue.h"

#ifdef __CUDACC__
#include "ptx_hopper.h"
#endif

namespace fastbsn {

template <Block B>
struct Hopper : Worker<B, 4> {
    static constexpr int CHUNKS = 4;
    using Base = Worker<B, CHUNKS>;
    using Base::AT, Base::LAST, Base::M, Base::at, Base::p, Base::shared, Base::source, Base::step, Base::t;

    static constexpr int THREADS = 384, ROW_THREADS = 96, CONSUMER_WARPS = 8, MT = M / 128;
    static constexpr int BARRIERS = 16 * AT.end, SHARED_BYTES = BARRIERS + 128;
    static_assert(B.width == 128 && (!B.pool || MT == 4));

    static constexpr int steps_per_tap(int segment) {
        return (segment == 0 ? B.up : segment > 1 ? B.n[segment - 2] : B.image ? B.image : B.skip) / 16;
    }
    // Whole taps, or a part that divides one, so that within a tap the addresses of k-steps differ by a constant.
    static constexpr int steps_per_chunk(int segment) {
        const int tap = steps_per_tap(segment);
        int steps = Base::steps_per_chunk(segment);
        while (tap > 0 && steps % tap && tap % steps) --steps;
        return steps;
    }

    const int group;
    int chunk = 0, round = 0;  // chunks of weights and steps of rows so far

    FASTBSN_PTX Hopper(const Params& p, const void* memory) : Base(p, memory), group(int(threadIdx.x / 128) - 1) {}

    FASTBSN_PTX uint32_t full(int c) const { return shared + BARRIERS + 8 * (c % CHUNKS); }
    FASTBSN_PTX uint32_t empty(int c) const { return shared + BARRIERS + 8 * (CHUNKS + c % CHUNKS); }
    FASTBSN_PTX uint32_t rows_full() const { return shared + BARRIERS + 8 * 2 * CHUNKS; }
    FASTBSN_PTX uint32_t rows_empty() const { return shared + BARRIERS + 8 * (2 * CHUNKS + 1); }

    FASTBSN_PTX static void arrive_warp(uint32_t barrier) {
        if (threadIdx.x % 32 == 0) barrier_arrive(barrier);
    }

    // First computed pixel of this group's tile j; where the last stage pools, tile j is phase j of the same cells.
    FASTBSN_PTX int first_m(int stage, int j) const { return stage == LAST && B.pool ? j * (M / 4) + group * 64 : (group * MT + j) * 64; }
    // Of the 16 pixels in this warp's fragments.
    FASTBSN_PTX int warp_m(int stage, int j) const { return first_m(stage, j) + threadIdx.x / 32 % 4 * 16; }

    template <int SEGMENT>
    FASTBSN_PTX void stream_segment() {
        constexpr int per = steps_per_chunk(SEGMENT);
        for (int k = 0; k < k_steps(B, SEGMENT); k += per, ++chunk) {
            const uint32_t bytes = 16 * min(per, k_steps(B, SEGMENT) - k) * step_octets(B, SEGMENT);
            barrier_wait(empty(chunk), chunk / CHUNKS % 2 ^ 1);
            barrier_expect(full(chunk), bytes);
            copy_bulk(at(AT.weights + chunk % CHUNKS * chunk_octets(B)), p.weights + 8 * (segment_at(B, SEGMENT) + k * step_octets(B, SEGMENT)), bytes,
                      full(chunk));
        }
    }

    FASTBSN_PTX void stream_weights() {
        stream_segment<0>();
        stream_segment<1>();
        stream_segment<2>();
        stream_segment<3>();
    }

    FASTBSN_PTX void stream_rows() {
        barrier_wait(rows_empty(), round++ % 2 ^ 1);
        this->load_rows(threadIdx.x - 32, ROW_THREADS);
        if constexpr (B.image > 0) this->load_image(threadIdx.x - 32, ROW_THREADS);
        commit_copies();
        wait_copies<0>();
        fence_async();
        barrier_arrive(rows_full());
    }

    // The descriptor of what stands so many octets further on; only its low word depends on the address, and cannot overflow.
    static constexpr uint64_t later(uint64_t descriptor, int octets) { return descriptor >> 32 << 32 | (uint32_t(descriptor) + uint32_t(octets)); }
    // Octets from one octet of channels of a pixel to the next.
    static constexpr int plane(int segment) { return source(segment) == COLUMNS ? M : source(segment) == COARSE ? pitch(B) : 2 * pitch(B); }

    template <int SEGMENT>
    FASTBSN_PTX uint64_t rows_of(const Operand& o, int m) const {
        constexpr int stage = stage_of(SEGMENT);
        if constexpr (source(SEGMENT) == COLUMNS) {
            return descriptor(at(AT.columns + columns_at(B, o.octet, m)), 16 * plane(SEGMENT), 128);
        } else if constexpr (source(SEGMENT) == COARSE) {
            const int r = m % (M / 4) / (B.width / 2);
            return descriptor(at(AT.coarse + coarse_at(B, coarse_slot(B, step, r + o.dy), o.octet, o.dx)), 16 * plane(SEGMENT), 128);
        } else {
            constexpr int base = stage == 0 ? AT.skip : AT.middle(stage - 1), channels = stage == 0 ? B.skip : B.n[stage - 1];
            const Pixel first = pixel(B, stage, m);
            const int octet = fine_at(B, channels, slot(B, step, first.v + o.dy), o.octet, first.u + o.dx);
            return descriptor(at(base + octet), 16 * plane(SEGMENT), 128);
        }
    }

    template <int SEGMENT, int COUNT, int NT>
    FASTBSN_PTX void accumulate_chunk(float (&sum)[MT][NT][4], int k0) {
        constexpr int stage = stage_of(SEGMENT), N = B.n[stage];
        barrier_wait(full(chunk), chunk / CHUNKS % 2);
        pin(sum);
        wgmma_fence();
        constexpr int PART = std::min(COUNT, steps_per_tap(SEGMENT)), PLANES = 2 * plane(SEGMENT);
#pragma unroll
        for (int part = 0; part < COUNT; part += PART) {
            const Operand o = operand(B, SEGMENT, k0 + part);
            uint64_t rows[MT], weights[MT];
#pragma unroll
            for (int j = 0; j < MT; ++j) {
                const int m = first_m(stage, j), phase = SEGMENT == 0 ? m / (M / 4) : 0;
                rows[j] = rows_of<SEGMENT>(o, m);
                weights[j] = descriptor(at(AT.weights + chunk % CHUNKS * chunk_octets(B) + part * step_octets(B, SEGMENT) + phase * 2 * N), 16 * N, 128);
            }
#pragma unroll
            for (int k = 0; k < PART; ++k)
#pragma unroll
                for (int j = 0; j < MT; ++j) wgmma(sum[j], later(rows[j], k * PLANES), later(weights[j], k * step_octets(B, SEGMENT)));
        }
        wgmma_commit();
        wgmma_wait<1>();
        if (k0 > 0) arrive_warp(empty(chunk - 1));
        ++chunk;
    }

    template <int SEGMENT, int NT>
    FASTBSN_PTX void accumulate(float (&sum)[MT][NT][4]) {
        constexpr int steps = k_steps(B, SEGMENT), per = steps_per_chunk(SEGMENT), rest = steps % per;
        if constexpr (steps > 0) {
            for (int k0 = 0; k0 < steps - rest; k0 += per) accumulate_chunk<SEGMENT, per>(sum, k0);
            if constexpr (rest > 0) accumulate_chunk<SEGMENT, rest>(sum, steps - rest);
            wgmma_wait<0>();
            pin(sum);
            arrive_warp(empty(chunk - 1));
        }
    }

    template <int STAGE>
    FASTBSN_PTX void run_stage() {
        constexpr int NT = B.n[STAGE] / 8;
        float sum[MT][NT][4];
        this->begin(sum, STAGE, 0);
        if constexpr (STAGE == 0) {
            barrier_wait(rows_full(), round++ % 2);
            if constexpr (B.image > 0) {
                this->make_columns(threadIdx.x - 128, 32 * CONSUMER_WARPS);
                fence_async();
                sync_consumers();
            }
            accumulate<0>(sum);
            accumulate<1>(sum);
            arrive_warp(rows_empty());
        } else {
            accumulate<STAGE + 1>(sum);
        }
        if constexpr (STAGE == LAST && B.pool) {
            this->store_output(sum, warp_m(STAGE, 0), 0);
        } else {
            if constexpr (STAGE < LAST) sync_consumers();  // the other group is done with the rows that are overwritten
#pragma unroll
            for (int j = 0; j < MT; ++j) {
                if constexpr (STAGE < LAST) this->template store_middle<STAGE>(sum[j], warp_m(STAGE, j), 0);
                else if constexpr (STAGE == 2) this->store_result(sum[j], warp_m(STAGE, j));
                else this->store_output(reinterpret_cast<const float(&)[1][NT][4]>(sum[j]), warp_m(STAGE, j), 0);
            }
            if constexpr (STAGE < LAST) {
                fence_async();
                sync_consumers();
            }
        }
    }

    FASTBSN_PTX void compute() {
        run_stage<0>();
        if constexpr (LAST > 0) run_stage<1>();
        if constexpr (LAST > 1) run_stage<2>();
    }

    template <class F>
    FASTBSN_PTX void each_step(F f) {
        for (int64_t index = blockIdx.x; index < tiles(p); index += gridDim.x)
            for (t = tile(B, p, index), step = 0; step < t.steps; ++step) f();
    }

    FASTBSN_PTX void run() {
        this->load_bias();
        if (threadIdx.x == 0) {
            for (int c = 0; c < CHUNKS; ++c) barrier_init(full(c), 1), barrier_init(empty(c), CONSUMER_WARPS);
            barrier_init(rows_full(), ROW_THREADS), barrier_init(rows_empty(), CONSUMER_WARPS);
            fence_async();
        }
        __syncthreads();
        if (threadIdx.x == 0) each_step([&] { stream_weights(); });
        else if (threadIdx.x >= 32 && threadIdx.x < 128) each_step([&] { stream_rows(); });
        else if (threadIdx.x >= 128) each_step([&] { compute(); });
    }
};

}  // namespace fastbsn
