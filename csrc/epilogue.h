// What the tensor-core kernels share: loading a step's inputs, and bias, activation, pooling and stores of a tile's sums.
//
// Sums are fragments: for 16 consecutive computed pixels from m on and 8 * NT channels from n on, sum[i] of lane l holds
// pixels l / 4 and l / 4 + 8 (pairs 0, 1 and 2, 3) of channels 8 i + l % 4 * 2 (+ 1).
#pragma once
#include "tensor.h"

#ifdef __CUDACC__
#include "ptx.h"
#endif

namespace fastbsn {

template <Block B, int CHUNKS>
struct Worker {
    static constexpr int LAST = stages(B) - 1, M = computed(B);
    static constexpr Layout AT = layout(B, CHUNKS);
    static_assert(B.width % 32 == 0 && !(B.skip && B.image));

    static constexpr Source source(int segment) { return segment == 0 ? COARSE : segment == 1 && B.image ? COLUMNS : FINE; }
    static constexpr int steps_per_chunk(int segment) { return k_steps(B, segment) ? chunk_octets(B) / step_octets(B, segment) : 1; }
    static constexpr int next(int segment) {
        do segment = (segment + 1) % SEGMENTS;
        while (k_steps(B, segment) == 0);
        return segment;
    }
    static constexpr int FIRST = next(SEGMENTS - 1);

    const Params& p;
    const uint32_t shared;
    int step = 0;
    Tile t{};

    FASTBSN_PTX Worker(const Params& p, const void* memory) : p(p), shared(shared_address(memory)) {}

    FASTBSN_PTX uint32_t at(int octet) const { return shared + 16 * octet; }

    // Rows of the inputs that this step needs and the one before did not have; asynchronous.
    FASTBSN_PTX void load_rows(int thread, int threads) const {
        if constexpr (B.skip > 0) {
            constexpr int octets = B.skip / 8, columns = B.width + 2;
            for (int i = thread + (step > 0 ? KEPT * columns * octets : 0); i < ring(B) * octets * columns; i += threads) {
                const int u = i % columns, octet = i / columns % octets, v = i / columns / octets;
                const int y = t.ys + step * B.rows + v, x = t.xs + u;
                const bool valid = inside(p, y, x);
                const uint16_t* from = p.skip.data + (valid ? 8 * tensor_at(octets, p.h, p.w, t.n, octet, y, x) : 0);
                copy_async(at(AT.skip + fine_at(B, B.skip, slot(B, step, v), octet, u)), from, valid);
            }
        }
        if constexpr (B.up > 0) {
            constexpr int octets = B.up / 8, columns = B.width / 2 + 1;
            const int h = p.coarse.h, w = p.coarse.w;
            for (int i = thread + (step > 0 ? COARSE_KEPT * columns * octets : 0); i < coarse_ring(B) * octets * columns; i += threads) {
                const int column = i % columns, octet = i / columns % octets, row = i / columns / octets;
                const int y = (t.ys + step * B.rows) / 2 + row, x = t.xs / 2 + column;
                const bool valid = y >= 0 && y < h && x >= 0 && x < w;
                const uint16_t* from = p.coarse.data + (valid ? 8 * tensor_at(octets, h, w, t.n, octet, y, x) : 0);
                copy_async(at(AT.coarse + coarse_at(B, coarse_slot(B, step, row), octet, column)), from, valid);
            }
        }
    }

    // The image as a matrix: one row of 3x3 neighbourhoods for every computed pixel of the step.
    FASTBSN_PTX void make_columns(int thread, int threads) const {
        for (int i = thread; i < columns_octets(B); i += threads) {
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

    FASTBSN_PTX const float* bias_of(int stage, int n) const { return p.bias + bias_at(B, stage) + n + threadIdx.x % 4 * 2; }

    // To the ring that the next stage reads. Outside the image an activation is 0, not that of the bias.
    template <int STAGE, int NT>
    FASTBSN_PTX void store_middle(const float (&sum)[NT][4], int m, int n) const {
        const Pixel first = pixel(B, STAGE, m);
        const float* bias = bias_of(STAGE, n);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int u = first.u + 2 * (threadIdx.x % 32 / 4 + 8 * half);
            const bool zero = !inside(p, t.ys + step * B.rows + first.v, t.xs + u);
            const uint32_t to = at(AT.middle(STAGE) + fine_at(B, B.n[STAGE], slot(B, step, first.v), n / 8, u)) + threadIdx.x % 4 * 4;
#pragma unroll
            for (int i = 0; i < NT; ++i) {
                const float low = leaky(sum[i][2 * half] + bias[8 * i]), high = leaky(sum[i][2 * half + 1] + bias[8 * i + 1]);
                store_shared(to + 16 * i * 2 * pitch(B), zero ? 0 : pack_bf16(low, high));
            }
        }
    }

    // To the output tensor. With pooling, sum[q] are the four phases of the same cells and m is the first of phase 0.
    template <int COUNT, int NT>
    FASTBSN_PTX void store_output(const float (&sum)[COUNT][NT][4], int m, int n) const {
        static_assert(COUNT == (B.pool ? 4 : 1));
        const Pixel first = pixel(B, LAST, m);
        const float* bias = bias_of(LAST, n);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int y = t.ys + step * B.rows + first.v, x = t.xs + first.u + 2 * (threadIdx.x % 32 / 4 + 8 * half);
            if (!is_output(B, p, t, y, x)) continue;
            const int64_t octet = tensor_at(p.out.channels / 8, p.out.h, p.out.w, t.n, n / 8, B.pool ? y / 2 : y, B.pool ? x / 2 : x);
#pragma unroll
            for (int i = 0; i < NT; ++i) {
                float low = sum[0][i][2 * half], high = sum[0][i][2 * half + 1];
#pragma unroll
                for (int q = 1; q < COUNT; ++q) low = fmaxf(low, sum[q][i][2 * half]), high = fmaxf(high, sum[q][i][2 * half + 1]);
                uint16_t* to = p.out.data + 8 * (octet + int64_t(i) * p.out.h * p.out.w) + threadIdx.x % 4 * 2;
                *reinterpret_cast<uint32_t*>(to) = pack_bf16(leaky(low + bias[8 * i]), leaky(high + bias[8 * i + 1]));
            }
        }
    }

    // The image minus the last convolution, in the caller's dtype.
    FASTBSN_PTX void store_result(const float (&sum)[1][4], int m) const {
        const Pixel first = pixel(B, 2, m);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            const int y = t.ys + step * B.rows + first.v, x = t.xs + first.u + 2 * (threadIdx.x % 32 / 4 + e / 2 * 8), c = threadIdx.x % 4 * 2 + e % 2;
            if (c < p.in_channels && is_output(B, p, t, y, x) && y < p.result.h && x < p.result.w)
                write_result(p, t.n, c, y, x, read_image(p, t.n, c, y, x) - (sum[0][e] + p.bias[bias_at(B, 2) + c]));
        }
    }
};

}  // namespace fastbsn
