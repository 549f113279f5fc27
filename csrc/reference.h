// The plain execution of a block: one loop nest per stage, no tensor cores, inputs straight from global memory.
//
// The same function is the CPU executor (one thread) and the reference kernel (a thread block): tiles, rings, phases, packed
// weights and bf16 roundings are those of the tensor-core kernels; only the order of the fp32 sums differs.
#pragma once
#include "tensor.h"

namespace fastbsn {

// One product of a k-step: activation (v, u) x 16 rows of weights for output channel n.
FASTBSN_HD float dot16(const Block& b, const Params& p, const Tile& t, const uint16_t* middle, int segment, int k, int step, int q, Pixel at, int n) {
    const Operand o = operand(b, segment, k);
    const int y = t.ys + step * b.rows + at.v, x = t.xs + at.u;
    float sum = 0;
    for (int half = 0; half < 2; ++half) {
        const uint16_t* weights = p.weights + int64_t(weight_at(b, segment, k, segment == 0 ? q : 0, half, n)) * 8;
        const uint16_t* octet = nullptr;
        if (o.source == COARSE) {
            const int cy = (t.ys + step * b.rows) / 2 + (at.v - 1) / 2 + o.dy, cx = t.xs / 2 + (at.u - 1) / 2 + o.dx;
            if (cy < 0 || cy >= p.coarse.h || cx < 0 || cx >= p.coarse.w) continue;
            octet = p.coarse.data + 8 * tensor_at(b.up / 8, p.coarse.h, p.coarse.w, t.n, o.octet + half, cy, cx);
        } else if (o.source == FINE && segment == 1) {
            if (!inside(p, y + o.dy, x + o.dx)) continue;
            octet = p.skip.data + 8 * tensor_at(b.skip / 8, p.h, p.w, t.n, o.octet + half, y + o.dy, x + o.dx);
        } else if (o.source == FINE) {
            octet = middle + 8 * fine_at(b, b.n[segment - 2], slot(b, step, at.v + o.dy), o.octet + half, at.u + o.dx);
        }
        for (int e = 0; e < 8; ++e) {
            const uint16_t a = octet ? octet[e] : to_bf16(column(p, t.n, (o.octet + half) * 8 + e, y, x));
            sum += from_bf16(a) * from_bf16(weights[e]);
        }
    }
    return sum;
}

FASTBSN_HD float convolution(const Block& b, const Params& p, const Tile& t, const uint16_t* middle, int stage, int step, int q, Pixel at, int n) {
    float sum = 0;
    for (int segment = stage == 0 ? 0 : stage + 1; segment <= stage + 1; ++segment)
        for (int k = 0; k < k_steps(b, segment); ++k) sum += dot16(b, p, t, middle, segment, k, step, q, at, n);
    return sum + p.bias[bias_at(b, stage) + n];
}

FASTBSN_HD void finish(const Block& b, const Params& p, const Tile& t, const uint16_t* middle, int step, int cell, int n) {
    const int stage = stages(b) - 1, cells = computed(b) / 4;
    float most = -INFINITY;
    for (int q = 0; q < 4; ++q) {
        const Pixel at = pixel(b, stage, q * cells + cell);
        const int y = t.ys + step * b.rows + at.v, x = t.xs + at.u;
        if (!is_output(b, p, t, y, x)) continue;
        const float sum = convolution(b, p, t, middle, stage, step, q, at, n);
        if (stage == 2) {
            if (n < p.in_channels && y < p.result.h && x < p.result.w)
                write_result(p, t.n, n, y, x, read_image(p, t.n, n, y, x) - sum);
        } else if (b.pool) {
            most = fmaxf(most, leaky(sum));
            if (q == 3) p.out.data[8 * tensor_at(p.out.channels / 8, p.out.h, p.out.w, t.n, n / 8, y / 2, x / 2) + n % 8] = to_bf16(most);
        } else {
            p.out.data[8 * tensor_at(p.out.channels / 8, p.h, p.w, t.n, n / 8, y, x) + n % 8] = to_bf16(leaky(sum));
        }
    }
}

// `middle` holds fine_octets of the first, then of the second intermediate tensor. `sync` is a barrier of all threads.
template <class Sync>
FASTBSN_HD void run_tile(const Block& b, const Params& p, int64_t index, uint16_t* middle, int thread, int threads, Sync sync) {
    const Tile t = tile(b, p, index);
    const int last = stages(b) - 1;
    const auto ring_of = [&](int stage) { return stage == 0 ? middle : middle + 8 * fine_octets(b, b.n[0]); };
    for (int step = 0; step < t.steps; ++step) {
        for (int stage = 0; stage < last; ++stage) {
            for (int i = thread; i < computed(b) * b.n[stage]; i += threads) {
                const int m = i / b.n[stage], n = i % b.n[stage], q = m / (computed(b) / 4);
                const Pixel at = pixel(b, stage, m);
                const bool zero = !inside(p, t.ys + step * b.rows + at.v, t.xs + at.u);  // the padding is of the activation
                const float value = zero ? 0 : leaky(convolution(b, p, t, stage ? ring_of(stage - 1) : nullptr, stage, step, q, at, n));
                ring_of(stage)[8 * fine_at(b, b.n[stage], slot(b, step, at.v), n / 8, at.u) + n % 8] = to_bf16(value);
            }
            sync();
        }
        for (int i = thread; i < computed(b) / 4 * b.n[last]; i += threads)
            finish(b, p, t, last ? ring_of(last - 1) : nullptr, step, i / b.n[last], i % b.n[last]);
        sync();
    }
}

}  // namespace fastbsn
