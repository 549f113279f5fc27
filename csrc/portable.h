// A block on tensor cores of sm_80 and later: rings in shared memory, ldmatrix + mma.sync, cp.async.
//
// Warps stand in a grid of 4 (pixels) by 1 or 2 (channels). Weights stream through two chunks of shared memory, one in use
// while the next arrives; the rows of the next step arrive while the later stages compute.
#pragma once
#include "tensor.h"

#ifdef __CUDACC__
#include "ptx.h"
#endif

namespace fastbsn {

template <Block B>
struct Portable {
    static constexpr int LAST = stages(B) - 1, M = computed(B);
    static constexpr int WARPS_N = B.up ? 2 : 1, WARPS = 4 * WARPS_N, THREADS = 32 * WARPS;
    static constexpr Layout AT = layout(B, 2);
    static constexpr int SHARED_BYTES = 16 * AT.end;

    // Stage 2 has too few channels to share out: every warp has its own pixels there.
    static constexpr int warps_n(int stage) { return stage == 2 ? 1 : WARPS_N; }
    static constexpr int m_tiles(int stage) { return M / 16 / (WARPS / warps_n(stage)); }
    static constexpr int n_tiles(int stage) { return B.n[stage] / 8 / warps_n(stage); }
    static constexpr Source source(int segment) { return segment == 0 ? COARSE : segment == 1 && B.image ? COLUMNS : FINE; }
    static constexpr int next(int segment) {
        do segment = (segment + 1) % SEGMENTS;
        while (k_steps(B, segment) == 0);
        return segment;
    }
    static constexpr int FIRST = next(SEGMENTS - 1);
    static_assert(M % 64 == 0 && B.width % 32 == 0 && (!B.pool || M == 256) && !(B.skip && B.image));

    const Params& p;
    const uint32_t shared;
    const int lane, warp;
    int chunk = 0;  // of the two, the one that arrives next
    int step = 0;
    Tile t{};

    FASTBSN_PTX Portable(const Params& p, const void* memory) : p(p), shared(shared_address(memory)), lane(threadIdx.x % 32), warp(threadIdx.x / 32) {}

    FASTBSN_PTX uint32_t at(int octet) const { return shared + 16 * octet; }

    // First computed pixel of this warp's tile j of 16 (consecutive cells of one phase). Where the last stage pools, or keeps
    // its layout, tile j is phase j of the same cells, so that the maximum stays in registers.
    FASTBSN_PTX int first_m(int stage, int j) const {
        const int row = warp / warps_n(stage);
        return stage == LAST && B.pool ? j * (M / 4) + row * 16 : (row * m_tiles(stage) + j) * 16;
    }
    FASTBSN_PTX int first_n(int stage) const { return warp % warps_n(stage) * n_tiles(stage) * 8; }

    template <int SEGMENT>
    FASTBSN_PTX void load_chunk(int k) {
        constexpr int per = chunk_octets(B) / step_octets(B, SEGMENT);
        const int count = min(per, k_steps(B, SEGMENT) - k) * step_octets(B, SEGMENT);
        const uint16_t* from = p.weights + 8 * (segment_at(B, SEGMENT) + k * step_octets(B, SEGMENT));
        for (int i = threadIdx.x; i < count; i += THREADS) copy_async(at(AT.weights + chunk * chunk_octets(B) + i), from + 8 * i);
        chunk ^= 1;
    }

    // Rows of the inputs that this step needs and the one before did not have.
    FASTBSN_PTX void load_rows() {
        if constexpr (B.skip > 0) {
            constexpr int octets = B.skip / 8, columns = B.width + 2;
            for (int i = threadIdx.x; i < ring(B) * octets * columns; i += THREADS) {
                const int u = i % columns, octet = i / columns % octets, v = i / columns / octets;
                if (step > 0 && v < KEPT) continue;
                const int y = t.ys + step * B.rows + v, x = t.xs + u;
                const bool valid = inside(p, y, x);
                const uint16_t* from = p.skip.data + (valid ? 8 * tensor_at(octets, p.h, p.w, t.n, octet, y, x) : 0);
                copy_async(at(AT.skip + fine_at(B, B.skip, slot(B, step, v), octet, u)), from, valid);
            }
        }
        if constexpr (B.up > 0) {
            constexpr int octets = B.up / 8, columns = B.width / 2 + 1;
            const int h = p.coarse.h, w = p.coarse.w;
            for (int i = threadIdx.x; i < coarse_ring(B) * octets * columns; i += THREADS) {
                const int column = i % columns, octet = i / columns % octets, row = i / columns / octets;
                if (step > 0 && row < COARSE_KEPT) continue;
                const int y = (t.ys + step * B.rows) / 2 + row, x = t.xs / 2 + column;
                const bool valid = y >= 0 && y < h && x >= 0 && x < w;
                const uint16_t* from = p.coarse.data + (valid ? 8 * tensor_at(octets, h, w, t.n, octet, y, x) : 0);
                copy_async(at(AT.coarse + coarse_at(B, coarse_slot(B, step, row), octet, column)), from, valid);
            }
        }
    }

    FASTBSN_PTX void make_columns() {
        for (int i = threadIdx.x; i < columns_octets(B); i += THREADS) {
            const int m = i % M, octet = i / M;
            const Pixel pixel = fastbsn::pixel(B, 0, m);
            uint32_t packed[4];
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int k = octet * 8 + 2 * e, y = t.ys + step * B.rows + pixel.v, x = t.xs + pixel.u;
                packed[e] = pack_bf16(column(p, t.n, k, y, x), column(p, t.n, k + 1, y, x));
            }
            store_shared(at(AT.columns + columns_at(B, octet, m)), packed);
        }
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
        constexpr int stage = stage_of(SEGMENT), N = B.n[stage], steps = k_steps(B, SEGMENT);
        constexpr int per = steps ? chunk_octets(B) / step_octets(B, SEGMENT) : 1;
        const int phase = SEGMENT == 0 ? first_m(stage, 0) / (M / 4) : 0;
        const int lane_octet = phase * 2 * N + lane / 8 % 2 * N + first_n(stage) + lane % 8 + lane / 16 * 8;
        for (int k0 = 0; k0 < steps; k0 += per) {
            const uint32_t weights = at(AT.weights + (chunk ^ 1) * chunk_octets(B) + lane_octet);
            wait_copies();
            __syncthreads();
            k0 + per < steps ? load_chunk<SEGMENT>(k0 + per) : load_chunk<next(SEGMENT)>(0);
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
        }
    }

    template <int STAGE, int MT, int NT>
    FASTBSN_PTX void store_middle(const float (&sum)[MT][NT][4]) {
#pragma unroll
        for (int j = 0; j < MT; ++j) {
            const Pixel first = pixel(B, STAGE, first_m(STAGE, j));
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int u = first.u + 2 * (lane / 4 + 8 * half);
                const bool zero = !inside(p, t.ys + step * B.rows + first.v, t.xs + u);  // the padding is of the activation
                const uint32_t to = at(AT.middle(STAGE) + fine_at(B, B.n[STAGE], slot(B, step, first.v), first_n(STAGE) / 8, u)) + lane % 4 * 4;
#pragma unroll
                for (int i = 0; i < NT; ++i) {
                    const float* bias = p.bias + bias_at(B, STAGE) + first_n(STAGE) + i * 8 + lane % 4 * 2;
                    const float low = leaky(sum[j][i][2 * half] + bias[0]), high = leaky(sum[j][i][2 * half + 1] + bias[1]);
                    store_shared(to + 16 * i * 2 * pitch(B), zero ? 0 : pack_bf16(low, high));
                }
            }
        }
    }

    template <int MT, int NT>
    FASTBSN_PTX void store_output(const float (&sum)[MT][NT][4]) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
#pragma unroll
            for (int j = 0; j < (B.pool ? 1 : MT); ++j) {
                const Pixel first = pixel(B, LAST, first_m(LAST, j));
                const int y = t.ys + step * B.rows + first.v, x = t.xs + first.u + 2 * (lane / 4 + 8 * half);
                if (!is_output(B, p, t, y, x)) continue;
                const int64_t octet = tensor_at(p.out.channels / 8, p.out.h, p.out.w, t.n, first_n(LAST) / 8, B.pool ? y / 2 : y, B.pool ? x / 2 : x);
#pragma unroll
                for (int i = 0; i < NT; ++i) {
                    const float* bias = p.bias + bias_at(B, LAST) + first_n(LAST) + i * 8 + lane % 4 * 2;
                    float low = sum[j][i][2 * half], high = sum[j][i][2 * half + 1];
                    if constexpr (B.pool) {
#pragma unroll
                        for (int phase = 1; phase < MT; ++phase)
                            low = fmaxf(low, sum[phase][i][2 * half]), high = fmaxf(high, sum[phase][i][2 * half + 1]);
                    }
                    uint16_t* to = p.out.data + 8 * (octet + int64_t(i) * p.out.h * p.out.w) + lane % 4 * 2;
                    *reinterpret_cast<uint32_t*>(to) = pack_bf16(leaky(low + bias[0]), leaky(high + bias[1]));
                }
            }
        }
    }

    template <int MT, int NT>
    FASTBSN_PTX void store_result(const float (&sum)[MT][NT][4]) {
#pragma unroll
        for (int j = 0; j < MT; ++j) {
            const Pixel first = pixel(B, 2, first_m(2, j));
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int y = t.ys + step * B.rows + first.v, x = t.xs + first.u + 2 * (lane / 4 + e / 2 * 8), c = lane % 4 * 2 + e % 2;
                if (c < p.in_channels && is_output(B, p, t, y, x) && y < p.result.h && x < p.result.w)
                    write_result(p, t.n, c, y, x, read_image(p, t.n, c, y, x) - (sum[j][0][e] + p.bias[bias_at(B, 2) + c]));
            }
        }
    }

    template <int STAGE>
    FASTBSN_PTX void run_stage() {
        constexpr int MT = m_tiles(STAGE), NT = n_tiles(STAGE);
        float sum[MT][NT][4] = {};
        if constexpr (STAGE == 0) {
            if constexpr (B.image > 0) make_columns();
            accumulate<0>(sum);
            accumulate<1>(sum);
            __syncthreads();  // every warp is done with the input rows
            ++step;
            if (step < p.steps) load_rows();
            --step;
        } else {
            accumulate<STAGE + 1>(sum);
        }
        if constexpr (STAGE < LAST) store_middle<STAGE>(sum);
        else if constexpr (STAGE == 2) store_result(sum);
        else store_output(sum);
    }

    FASTBSN_PTX void run() {
        load_chunk<FIRST>(0);
        for (int64_t index = blockIdx.x; index < tiles(p); index += gridDim.x) {
            t = tile(B, p, index), step = 0;
            load_rows();
            for (; step < p.steps; ++step) {
                run_stage<0>();
                if constexpr (LAST > 0) run_stage<1>();
                if constexpr (LAST > 1) run_stage<2>();
            }
        }
        wait_copies();
    }
};

}  // namespace fastbsn
