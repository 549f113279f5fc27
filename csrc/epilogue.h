// What the tensor-core kernels share: loading a step's inputs, and activation, pooling and stores of a tile's sums.
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

    // The new rows of the image, as load_rows has them of tensors: those of COUNT elements, from `first` on, into registers, and from
    // there into their ring as bf16, so that what comes in between hides the latency.
    FASTBSN_PTX int image_elements() const { return (step > 0 ? B.rows : ring(B)) * image_channels(B) * image_pitch(B); }
    template <int COUNT, class F>
    FASTBSN_PTX void each_element(int first, int stride, F f) const {
#pragma unroll
        for (int e = 0; e < COUNT; ++e) {
            const int i = first + e * stride, u = i % image_pitch(B), c = i / image_pitch(B) % image_channels(B);
            if (i < image_elements()) f(e, i / image_pitch(B) / image_channels(B) + (step > 0 ? KEPT : 0), c, u);
        }
    }
    template <int COUNT>
    FASTBSN_PTX void fetch_image(float (&value)[COUNT], int first, int stride) const {
        with_dtype(p.image.dtype, [&]<int DTYPE>() {
            each_element<COUNT>(first, stride, [&](int e, int v, int c, int u) {
                value[e] = c < p.in_channels ? read_padded<DTYPE>(p, t.n, c, t.ys + step * B.rows + v, t.xs + u) : 0;
            });
        });
    }
    template <int COUNT>
    FASTBSN_PTX void store_image(const float (&value)[COUNT], int first, int stride) const {
        each_element<COUNT>(first, stride, [&](int e, int v, int c, int u) {
            store_shared(at(AT.image) + 2 * image_at(B, slot(B, step, v), c, u), uint16_t(pack_bf16(value[e], 0)));
        });
    }
    FASTBSN_PTX void load_image(int thread, int threads) const {
        constexpr int COUNT = 8;
        for (int first = thread; first < image_elements(); first += COUNT * threads) {
            float value[COUNT];
            fetch_image(value, first, threads);
            store_image(value, first, threads);
        }
    }

    // The image as a matrix: one row of 3x3 neighbourhoods of C channels for every computed pixel of the step.
    template <int C>
    FASTBSN_PTX void gather_columns(int thread, int threads) const {
        for (int m = thread; m < M; m += threads) {
            const Pixel pixel = fastbsn::pixel(B, 0, m);
            uint32_t row[3];
#pragma unroll
            for (int dy = 0; dy < 3; ++dy) row[dy] = at(AT.image) + 2 * image_at(B, slot(B, step, pixel.v + dy - 1), 0, pixel.u - 1);
            const auto column = [&](int k) { return k < 9 * C ? uint32_t(load_shared(row[k / C / 3] + 2 * image_at(B, 0, k % C, k / C % 3))) : 0; };
#pragma unroll
            for (int octet = 0; octet < B.image / 8; ++octet) {
                uint32_t packed[4];
#pragma unroll
                for (int e = 0; e < 4; ++e) packed[e] = column(octet * 8 + 2 * e) | column(octet * 8 + 2 * e + 1) << 16;
                store_shared(at(AT.columns + columns_at(B, octet, m)), packed);
            }
        }
    }
    FASTBSN_PTX void make_columns(int thread, int threads) const {
        if (p.in_channels == 1) gather_columns<1>(thread, threads);
        else if (p.in_channels == 2) gather_columns<2>(thread, threads);
        else gather_columns<3>(thread, threads);
    }

    // Once, before a barrier of all threads.
    FASTBSN_PTX void load_bias() const {
        if (threadIdx.x < bias_count(B) / 4) copy_async(at(AT.bias + threadIdx.x), p.bias + 4 * threadIdx.x);
        commit_copies();
        wait_copies<0>();
    }

    // Sums begin with the bias of their channels, from n on.
    template <int MT, int NT>
    FASTBSN_PTX void begin(float (&sum)[MT][NT][4], int stage, int n) const {
#pragma unroll
        for (int i = 0; i < NT; ++i) {
            float bias[2];
            load_shared(bias, at(AT.bias) + 4 * (bias_at(B, stage) + n + 8 * i + threadIdx.x % 4 * 2));
#pragma unroll
            for (int j = 0; j < MT; ++j)
#pragma unroll
                for (int e = 0; e < 4; ++e) sum[j][i][e] = bias[e % 2];
        }
    }

    // To the ring that the next stage reads. Outside the image an activation is 0, not that of the bias.
    template <int STAGE, int NT>
    FASTBSN_PTX void store_middle(const float (&sum)[NT][4], int m, int n) const {
        const Pixel first = pixel(B, STAGE, m);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int u = first.u + 2 * (threadIdx.x % 32 / 4 + 8 * half);
            const bool zero = !inside(p, t.ys + step * B.rows + first.v, t.xs + u);
            const uint32_t to = at(AT.middle(STAGE) + fine_at(B, B.n[STAGE], slot(B, step, first.v), n / 8, u)) + threadIdx.x % 4 * 4;
#pragma unroll
            for (int i = 0; i < NT; ++i) {
                const float low = leaky(sum[i][2 * half]), high = leaky(sum[i][2 * half + 1]);
                store_shared(to + 16 * i * 2 * pitch(B), zero ? 0 : pack_bf16(low, high));
            }
        }
    }

    // To the output tensor. With pooling, sum[q] are the four phases of the same cells and m is the first of phase 0.
    template <int COUNT, int NT>
    FASTBSN_PTX void store_output(const float (&sum)[COUNT][NT][4], int m, int n) const {
        static_assert(COUNT == (B.pool ? 4 : 1));
        const Pixel first = pixel(B, LAST, m);
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
                store_global(to, pack_bf16(leaky(low), leaky(high)));
            }
        }
    }

    // The image minus the last convolution, in the caller's dtype.
    FASTBSN_PTX void store_result(const float (&sum)[1][4], int m) const {
        const Pixel first = pixel(B, 2, m);
        const int c0 = threadIdx.x % 4 * 2, y = t.ys + step * B.rows + first.v, x0 = t.xs + first.u + 2 * (threadIdx.x % 32 / 4);
        const auto each = [&](auto f) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int x = x0 + e / 2 * 16, c = c0 + e % 2;
                if (c < p.in_channels && is_output(B, p, t, y, x) && y < p.result.h && x < p.result.w) f(e, c, x);
            }
        };
        float pixel[4] = {};
        with_dtype(p.image.dtype, [&]<int DTYPE>() {
            each([&](int e, int c, int x) { pixel[e] = read_element<DTYPE>(p.image, element_at(p.image, t.n, c, y, x)); });
        });
        with_dtype(p.result.dtype, [&]<int DTYPE>() {
            each([&](int e, int c, int x) {
                write_element<DTYPE>(p.result, element_at(p.result, t.n, c, y, x), pixel[e] - sum[0][e]);
            });
        });
    }
};

}  // namespace fastbsn
