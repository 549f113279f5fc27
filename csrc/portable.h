// A block on tensor cores of sm_80 and later: rings in shared memory, ldmatrix + mma.sync, cp.async.
//
// Warps stand in a grid of 4 (pixels) by 1 or 2 (channels). Weights stream through two chunks of shared memory, one in use
// while the next arrives: of the upsampled segment every warp its own, without a barrier between k-steps, of others all of them together.
// The rows of the next step arrive in shares, one behind each chunk of the later stages.
#pragma once
#include "epilogue.h"

namespace fastbsn {

template <Block B>
struct Portable : Worker<B, 2> {
    using Base = Worker<B, 2>;
    using Base::AT, Base::FIRST, Base::LAST, Base::M, Base::at, Base::next, Base::p, Base::source, Base::step, Base::steps_per_chunk, Base::t;

    static constexpr int WARPS_N = B.up ? 2 : 1, WARPS = 4 * WARPS_N, THREADS = 32 * WARPS;
    static constexpr int SHARED_BYTES = 16 * AT.end;
    static constexpr int RESIDENT = WARPS_N == 2 ? 1 : std::min(3, (164 << 10) / (SHARED_BYTES + 1024));  // on a multiprocessor of sm_80

    static constexpr int chunks(int segment) { return ceil_div(k_steps(B, segment), steps_per_chunk(segment)); }
    // Of the next step's rows; the last chunk brings none, so that they are there when the step begins.
    static constexpr int SHARES = std::max(1, chunks(2) + chunks(3) - 1);
    static constexpr int PIXELS = std::max(1, ceil_div(B.rows * image_channels(B) * image_pitch(B), THREADS * SHARES));  // of a thread's share

    // Stage 2 has too few channels to share out: every warp has its own pixels there.
    static constexpr int warps_n(int stage) { return stage == 2 ? 1 : WARPS_N; }
    static constexpr int m_tiles(int stage) { return M / 16 / (WARPS / warps_n(stage)); }
    static constexpr int n_tiles(int stage) { return B.n[stage] / 8 / warps_n(stage); }
    static_assert(M % 64 == 0 && (!B.pool || M == 256));
    static_assert(!B.up || (WARPS == 4 * warps_n(0) && steps_per_chunk(0) == 1));  // a warp of one phase, a k-step of all phases

    const int lane, warp;
    int chunk = 0;  // of the two, the one that arrives next

    FASTBSN_PTX Portable(const Params& p, const void* memory) : Base(p, memory), lane(threadIdx.x % 32), warp(threadIdx.x / 32) {}

    // First computed pixel of this warp's tile j of 16 (consecutive cells of one phase). Where the last stage pools, tile j
    // is phase j of the same cells, so that the maximum stays in registers.
    FASTBSN_PTX int first_m(int stage, int j) const {
        const int row = warp / warps_n(stage);
        return stage == LAST && B.pool ? j * (M / 4) + row * 16 : (row * m_tiles(stage) + j) * 16;
    }
    FASTBSN_PTX int phase() const { return first_m(0, 0) / (M / 4); }  // of all tiles of this warp in segment 0
    FASTBSN_PTX int first_n(int stage) const { return warp % warps_n(stage) * n_tiles(stage) * 8; }

    // Of segment 0 a warp brings what it reads itself, the weights of its phase and channels; of others all warps read all.
    template <int SEGMENT>
    FASTBSN_PTX void load_chunk(int k) {
        const int count = min(steps_per_chunk(SEGMENT), k_steps(B, SEGMENT) - k) * step_octets(B, SEGMENT);
        const uint16_t* from = p.weights + 8 * (segment_at(B, SEGMENT) + k * step_octets(B, SEGMENT));
        const auto copy = [&](int i) { copy_async(at(AT.weights + chunk * chunk_octets(B) + i), from + 8 * i); };
        if constexpr (SEGMENT == 0) {
            constexpr int N = 8 * n_tiles(0);
            for (int i = lane; i < 2 * N; i += 32) copy(phase() * 2 * B.n[0] + i / N * B.n[0] + first_n(0) + i % N);
        } else {
            for (int i = threadIdx.x; i < count; i += THREADS) copy(i);
        }
        commit_copies();
        chunk ^= 1;
    }

    // Calls f(first element, stride) as of the next step, if there is one and the share is of its rows.
    template <class F>
    FASTBSN_PTX void for_next_rows(int share, F f) {
        if (share >= SHARES || step + 1 >= t.steps) return;
        ++step;
        f(threadIdx.x + THREADS * share, THREADS * SHARES);
        --step;
    }
    // Always a group, if an empty one, so that a wait for a chunk can leave the share behind it on its way.
    FASTBSN_PTX void load_next_rows(int share) {
        for_next_rows(share, [&](int first, int stride) { this->load_rows(first, stride); });
        commit_copies();
    }

    // Address of the 16 pixels from m on, this lane's row of the fragment.
    template <int SEGMENT>
    FASTBSN_PTX uint32_t rows_of(const Operand& o, int m) const {
        constexpr int stage = stage_of(SEGMENT);
        const int pixel_of_lane = lane % 16, half = lane / 16;
        if constexpr (source(SEGMENT) == COLUMNS) {
            return at(AT.columns + columns_at(B, o.octet + half, m + pixel_of_lane));
        } else if constexpr (source(SEGMENT) == COARSE) {
            const int cell = m % (M / 4), r = cell / (B.width / 2), i = cell % (B.width / 2);
            return at(AT.coarse + coarse_at(B, coarse_slot(B, step, r + o.dy), o.octet + half, i + o.dx + pixel_of_lane));
        } else {
            constexpr int base = stage == 0 ? AT.skip : AT.middle(stage - 1), channels = stage == 0 ? B.skip : B.n[stage - 1];
            const Pixel first = pixel(B, stage, m);
            return at(base + fine_at(B, channels, slot(B, step, first.v + o.dy), o.octet + half, first.u + o.dx) + pixel_of_lane);
        }
    }

    template <int SEGMENT, int MT, int NT>
    FASTBSN_PTX void accumulate(float (&sum)[MT][NT][4]) {
        constexpr int stage = stage_of(SEGMENT), N = B.n[stage], steps = k_steps(B, SEGMENT), per = steps_per_chunk(SEGMENT);
        const int lane_octet = (SEGMENT == 0 ? phase() : 0) * 2 * N + lane / 8 % 2 * N + first_n(stage) + lane % 8 + lane / 16 * 8;
        for (int k0 = 0; k0 < steps; k0 += per) {
            const uint32_t weights = at(AT.weights + (chunk ^ 1) * chunk_octets(B) + lane_octet);
            wait_copies<stage == 0 ? 0 : 1>();
            // A warp's own weights need no other: only for the input's rows at first, and before others' places are written at last.
            if (SEGMENT == 0 && k0 > 0 && k0 + per < steps) __syncwarp();
            else
                __syncthreads();
            k0 + per < steps ? load_chunk<SEGMENT>(k0 + per) : load_chunk<next(SEGMENT)>(0);
            const int share = stage == 0 ? SHARES : k0 / per + (SEGMENT == 3) * chunks(2);
            load_next_rows(share);
            float pixels[PIXELS] = {};
            if constexpr (B.image > 0 && stage > 0) for_next_rows(share, [&](int first, int stride) { this->fetch_image(pixels, first, stride); });
            const int count = min(per, steps - k0);
            for (int k = 0; k < count; ++k) {
                const Operand o = operand(B, SEGMENT, k0 + k);
                uint32_t a[MT][4];
#pragma unroll
                for (int j = 0; j < MT; ++j) ldmatrix_x4(a[j], rows_of<SEGMENT>(o, first_m(stage, j)));
#pragma unroll
                for (int i = 0; i + 1 < NT; i += 2) {
                    uint32_t b[4];
                    ldmatrix_x4(b, weights + 16 * (k * step_octets(B, SEGMENT) + i * 8));
#pragma unroll
                    for (int j = 0; j < MT; ++j) mma(sum[j][i], a[j], b[0], b[1]), mma(sum[j][i + 1], a[j], b[2], b[3]);
                }
                if constexpr (NT % 2) {
                    uint32_t b[2];
                    ldmatrix_x2(b, weights + 16 * (k * step_octets(B, SEGMENT) + (NT - 1) * 8));
#pragma unroll
                    for (int j = 0; j < MT; ++j) mma(sum[j][NT - 1], a[j], b[0], b[1]);
                }
            }
            if constexpr (B.image > 0 && stage > 0) for_next_rows(share, [&](int first, int stride) { this->store_image(pixels, first, stride); });
        }
    }

    template <int STAGE>
    FASTBSN_PTX void run_stage() {
        constexpr int MT = m_tiles(STAGE), NT = n_tiles(STAGE);
        float sum[MT][NT][4];
        this->begin(sum, STAGE, first_n(STAGE));
        if constexpr (STAGE == 0) {
            if constexpr (B.image > 0) this->make_columns(threadIdx.x, THREADS);
            accumulate<0>(sum);
            accumulate<1>(sum);
            if constexpr (LAST == 0) {
                __syncthreads();  // every warp is done with the input rows
                load_next_rows(0);
            }
        } else {
            accumulate<STAGE + 1>(sum);
        }
        if constexpr (STAGE == LAST && B.pool) {
            this->store_output(sum, first_m(STAGE, 0), first_n(STAGE));
        } else {
#pragma unroll
            for (int j = 0; j < MT; ++j) {
                if constexpr (STAGE < LAST) this->template store_middle<STAGE>(sum[j], first_m(STAGE, j), first_n(STAGE));
                else if constexpr (STAGE == 2) this->store_result(sum[j], first_m(STAGE, j));
                else this->store_output(reinterpret_cast<const float(&)[1][NT][4]>(sum[j]), first_m(STAGE, j), first_n(STAGE));
            }
        }
    }

    FASTBSN_PTX void run() {
        this->load_bias();
        __syncthreads();
        load_chunk<FIRST>(0);
        for (int64_t index = blockIdx.x; index < tiles(p); index += gridDim.x) {
            t = tile(B, p, index), step = 0;
            this->load_rows(threadIdx.x, THREADS);
            commit_copies();
            if constexpr (B.image > 0) {
                this->load_image(threadIdx.x, THREADS);
                __syncthreads();
            }
            for (; step < t.steps; ++step) {
                run_stage<0>();
                if constexpr (LAST > 0) run_stage<1>();
                if constexpr (LAST > 1) run_stage<2>();
            }
        }
        wait_copies<0>();
    }
};

}  // namespace fastbsn
