// The module of the paper D-BSN (multiple dilated convolutions) with 96 channels on sm_90a, whole, in one kernel; forward only.
//
// a1, b1 = ReLU(1x1 x), 0 where there is no pixel; a = ReLU(5x5 a1), b = ReLU(3x3 b1), c = ReLU(1x1 x); j = ReLU(1x1 [a, b, c]);
// u = j + x; v = ReLU(1x1 u); y = ReLU(1x1 v). Sums and biases are fp32, activations and weights of one 16-bit type.
//
// A thread block works on tiles of 16 x 16 pixels of an image (or phase image). x with a halo of 2 is brought to shared memory
// once; a1, later b1, stand in a second array of that size, where a tap of the 5x5 or 3x3 is only another start address for wgmma. What
// the 1x1 layers behind read takes the place of what was read before. The arrays change places from tile to tile, so that the next x
// arrives while the last products of this tile run.
//
// Three warp groups. Group 0 produces: its first thread streams weights (bulk copies), its other three warps bring x. Groups 1 and 2
// compute the upper and the lower half of the tile, each two patches of 8 x 8 pixels side by side with all channels.
#pragma once
#include "mdc_tile.h"

#ifdef __CUDACC__
#include "ptx_mdc.h"
#endif

namespace fastbsn {

template <bool HALF>
struct Mdc {
    static constexpr int THREADS = 384, ROW_THREADS = 96, CONSUMER_WARPS = 8, SHARED_BYTES = mdc::SHARED_BYTES;
    static constexpr int CHUNKS = mdc::CHUNKS, PLANE = mdc::PLANE, EDGE = mdc::EDGE, STEPS = mdc::K_STEPS, C = mdc::CHANNELS;
    using Sums = float[2][C / 8][4];  // of two runs of 64 pixels

    const mdc::Params& p;
    const uint32_t shared;
    uint32_t chunk = 0, round = 0;  // matrices and tiles so far
    int index = 0;                  // of this tile

    FASTBSN_PTX Mdc(const mdc::Params& p, const void* memory) : p(p), shared(shared_address(memory)) {}

    // Read anew at each use: kept from one use to the next, what depends on them would take more registers than there are.
    FASTBSN_PTX static int group() { return int(thread_index() / 128) - 1; }  // of warps: -1 produces
    FASTBSN_PTX static int warp() { return int(thread_index() / 32 % 4); }    // of the group
    FASTBSN_PTX static int lane() { return int(thread_index() % 32); }

    FASTBSN_PTX uint32_t full(uint32_t c) const { return shared + mdc::BARRIERS + 8 * (c % CHUNKS); }
    FASTBSN_PTX uint32_t empty(uint32_t c) const { return shared + mdc::BARRIERS + 8 * (CHUNKS + c % CHUNKS); }
    FASTBSN_PTX uint32_t rows_full() const { return shared + mdc::BARRIERS + 8 * 2 * CHUNKS; }
    FASTBSN_PTX uint32_t rows_empty() const { return shared + mdc::BARRIERS + 8 * (2 * CHUNKS + 1); }
    FASTBSN_PTX uint32_t array(uint32_t which) const { return shared + which % 2 * mdc::ARRAY_BYTES; }
    FASTBSN_PTX uint32_t inside() const { return shared + mdc::INSIDE + round % 2 * 2 * PLANE; }
    FASTBSN_PTX static uint32_t octet_at(uint32_t array, int octet, int pixel) { return array + 16 * (octet * PLANE + pixel); }
    FASTBSN_PTX static void arrive_warp(uint32_t barrier) {
        if (lane() == 0) barrier_arrive(barrier);
    }

    // -- group 0

    FASTBSN_PTX void stream_weights() {
        for (int i = 0; i < mdc::PRODUCTS; ++i, ++chunk) {
            barrier_wait(empty(chunk), int(chunk / CHUNKS % 2 ^ 1));
            barrier_expect(full(chunk), mdc::MATRIX_BYTES);
            copy_bulk(shared + mdc::WEIGHTS + chunk % CHUNKS * mdc::MATRIX_BYTES, p.weights + i * (C * C), mdc::MATRIX_BYTES, full(chunk));
        }
    }

    // A warp brings 8 pixels by 4 octets at a time: whole sectors of global memory, and no bank twice in shared memory.
    FASTBSN_PTX void stream_rows() {
        constexpr int PARTS = mdc::OCTETS / 4;
        const int thread = int(thread_index()) - 32, lane = thread % 32;
        const mdc::Tile t = mdc::tile(p, index);
        barrier_wait(rows_empty(), int(round % 2 ^ 1));
        for (int i = thread / 32; i < PLANE / 8 * PARTS; i += ROW_THREADS / 32) {
            const int pixel = i / PARTS * 8 + lane % 8, octet = i % PARTS * 4 + lane / 8;
            const int y = t.y + pixel / EDGE - mdc::HALO, x = t.x + pixel % EDGE - mdc::HALO;
            const bool valid = mdc::exists(p, y, x);
            copy_async(octet_at(array(round), octet, pixel), p.x + (valid ? mdc::position(p, t.image, y, x) * C + 8 * octet : 0), valid);
        }
        commit_copies();
        for (int i = thread; i < PLANE; i += ROW_THREADS) {
            const int y = t.y + i / EDGE - mdc::HALO, x = t.x + i % EDGE - mdc::HALO;
            store_shared(inside() + 2 * i, uint16_t(mdc::exists(p, y, x) ? p.inside[mdc::position(p, t.image, y, x)] : 0));
        }
        wait_copies<0>();
        fence_async();
        barrier_arrive(rows_full());
    }

    // -- groups 1 and 2

    FASTBSN_PTX void load_biases() const {
        for (int i = int(thread_index()) - 128; i < mdc::BIASES * C; i += 256) {
            uint32_t bits;
            memcpy(&bits, &p.bias[i], 4);
            store_shared(shared + mdc::BIAS + 4 * i, bits);
        }
        sync_consumers();
    }

    FASTBSN_PTX void begin(Sums& sum, int bias) const {
        const uint32_t from = shared + mdc::BIAS + 4 * bias * C + lane() % 4 * 8;
#pragma unroll
        for (int i = 0; i < C / 8; ++i) {
            float low, high;
            load_pair(low, high, from + 32 * i);
#pragma unroll
            for (int j = 0; j < 2; ++j) sum[j][i][0] = sum[j][i][2] = low, sum[j][i][1] = sum[j][i][3] = high;
        }
    }

    // The descriptor of what stands so many octets further on; only its low word depends on the address, and cannot overflow.
    static constexpr uint64_t later(uint64_t descriptor, int octets) { return descriptor >> 32 << 32 | (uint32_t(descriptor) + uint32_t(octets)); }
    FASTBSN_PTX uint64_t matrix() const { return descriptor(shared + mdc::WEIGHTS + chunk % CHUNKS * mdc::MATRIX_BYTES, 16 * C, 128); }
    // 8 x 8 pixels of an array, or 64 that follow each other.
    FASTBSN_PTX static uint64_t pixels(uint32_t array, int first, int row_stride) {
        return descriptor(octet_at(array, 0, first), 16 * PLANE, 16 * row_stride);
    }

    // sum += rows @ the next matrix, still running at the end; the matrix before is done with unless this one is the `first` of several.
    FASTBSN_PTX void product(Sums& sum, uint64_t rows0, uint64_t rows1, bool first) {
        barrier_wait(full(chunk), int(chunk / CHUNKS % 2));
        const uint64_t weights = matrix();
        pin(sum);
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < STEPS; ++k) {
            multiply<HALF>(sum[0], later(rows0, 2 * k * PLANE), later(weights, 2 * k * C));
            multiply<HALF>(sum[1], later(rows1, 2 * k * PLANE), later(weights, 2 * k * C));
        }
        wgmma_commit();
        if (!first) {
            wgmma_wait<1>();
            arrive_warp(empty(chunk - 1));
        }
        ++chunk;
    }
    FASTBSN_PTX void finish(Sums& sum) {
        wgmma_wait<0>();
        pin(sum);
        arrive_warp(empty(chunk - 1));
    }
    // The same, to its end, of this group's pixels of the tile in an array.
    FASTBSN_PTX void product(Sums& sum, uint32_t from) {
        const int first = mdc::patch(group(), 0, 0, 0);
        product(sum, pixels(from, first, EDGE), pixels(from, first + 8, EDGE), true);
        finish(sum);
    }

    // a1 or b1, of the tile and its halo, into the array `to`.
    FASTBSN_PTX void pointwise(uint32_t from, uint32_t to, int bias) {
#pragma unroll
        for (int pass = 0; pass < 2; ++pass) {
            const int run = 4 * group() + 2 * pass;
            Sums sum;
            begin(sum, bias);
            chunk -= pass;  // both passes take the same matrix
            product(sum, pixels(from, mdc::run_first(run), 8), pixels(from, mdc::run_first(run + 1), 8), true);
            wgmma_wait<0>();
            pin(sum);
            if (pass == 0) sync_consumers();  // nobody reads any more what is overwritten
#pragma unroll
            for (int j = 0; j < 2; ++j)
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const int pixel = mdc::run_first(run + j) + 16 * warp() + lane() / 4 + 8 * half;
                    if (pixel < 64 * (run + j)) continue;
                    const bool kept = load_shared(inside() + 2 * pixel) != 0;
                    const uint32_t address = octet_at(to, 0, pixel) + lane() % 4 * 4;
#pragma unroll
                    for (int i = 0; i < C / 8; ++i) {
                        const uint32_t pair = pack<HALF, true>(sum[j][i][2 * half], sum[j][i][2 * half + 1]);
                        store_shared(octet_at(address, i, 0), kept ? pair : 0u);
                    }
                }
        }
        arrive_warp(empty(chunk - 1));
        fence_async();
        sync_consumers();
    }

    template <int K>
    FASTBSN_PTX void taps(Sums& sum, uint32_t from, int bias) {
        begin(sum, bias);
        for (int tap = 0; tap < K * K; ++tap) {
            const int first = mdc::patch(group(), 0, tap / K - K / 2, tap % K - K / 2);
            product(sum, pixels(from, first, EDGE), pixels(from, first + 8, EDGE), tap == 0);
        }
        finish(sum);
    }

    // f(sum's pair, address of the same two channels of the same pixel in `array`, whether there is a pixel)
    template <class F>
    FASTBSN_PTX void each_pair(Sums& sum, uint32_t array, F f) const {
#pragma unroll
        for (int j = 0; j < 2; ++j)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int pixel = mdc::patch(group(), j, 2 * warp() + half, lane() / 4);
                const uint32_t address = octet_at(array, 0, pixel) + lane() % 4 * 4;
                const bool kept = load_shared(inside() + 2 * pixel) != 0;
#pragma unroll
                for (int i = 0; i < C / 8; ++i) f(sum[j][i][2 * half], sum[j][i][2 * half + 1], octet_at(address, i, 0), kept);
            }
    }

    FASTBSN_PTX static float widen(uint32_t bits) {
        if constexpr (HALF) return from_half(uint16_t(bits));
        else return from_bf16(uint16_t(bits));
    }

    // Sums, rounded, in an array as the left operand of this group's next product.
    template <bool RELU>
    FASTBSN_PTX void put(Sums& sum, uint32_t array) const {
        sync_group(group());  // all its warps are done with what is overwritten
        each_pair(sum, array, [&](float low, float high, uint32_t address, bool) { store_shared(address, pack<HALF, RELU>(low, high)); });
        fence_async();
        sync_group(group());
    }

    // y, first into the place of x in shared memory, from where whole sectors go out.
    FASTBSN_PTX void store(Sums& sum, uint32_t x) const {
        sync_group(group());
        each_pair(sum, x, [&](float low, float high, uint32_t address, bool kept) {
            const uint32_t pair = pack<HALF, true>(low, high);
            store_shared(address, kept ? pair : 0u);
        });
        sync_warp();
        const mdc::Tile t = mdc::tile(p, index);
        for (int part = 0; part < 4; ++part) {
            const int j = part % 2, v = 2 * warp() + part / 2, u = lane() % 8, octet = lane() / 8;
            const int row = t.y + 8 * group() + v, column = t.x + 8 * j + u;
            if (!mdc::exists(p, row, column)) continue;
            uint16_t* to = p.y + mdc::position(p, t.image, row, column) * C + 8 * octet;
            const uint32_t from = octet_at(x, octet, mdc::patch(group(), j, v, u));
#pragma unroll
            for (int i = 0; i < mdc::OCTETS; i += 4) copy_out(to + 8 * i, octet_at(from, i, 0));
        }
    }

    FASTBSN_PTX void compute() {
        const uint32_t x = array(round), other = array(round + 1);
        Sums sum, joined;
        barrier_wait(rows_full(), int(round % 2));
        pointwise(x, other, mdc::A1);
        taps<5>(sum, other, mdc::A2);
        sync_consumers();  // both groups are done with a1
        put<true>(sum, other);
        begin(joined, mdc::JOIN);
        product(joined, other);
        begin(sum, mdc::C);
        product(sum, x);
        put<true>(sum, other);
        product(joined, other);
        pointwise(x, other, mdc::B1);
        taps<3>(sum, other, mdc::B2);
        sync_consumers();
        put<true>(sum, other);
        product(joined, other);
        arrive_warp(rows_empty());
        each_pair(joined, x, [&](float& low, float& high, uint32_t address, bool) {
            const uint32_t pair = load_word(address);
            low = relu(low) + widen(pair), high = relu(high) + widen(pair >> 16);
        });
        put<false>(joined, x);
        begin(sum, mdc::T1);
        product(sum, x);
        put<true>(sum, x);
        begin(sum, mdc::T2);
        product(sum, x);
        store(sum, x);
    }

    template <class F>
    FASTBSN_PTX void each_tile(F f) {
        const int count = int(mdc::tiles(p));
        for (index = int(blockIdx.x); index < count; index += int(gridDim.x), ++round) f();
    }

    FASTBSN_PTX void run() {
        if (threadIdx.x == 0) {
            for (int c = 0; c < CHUNKS; ++c) barrier_init(full(c), 1), barrier_init(empty(c), CONSUMER_WARPS);
            barrier_init(rows_full(), ROW_THREADS), barrier_init(rows_empty(), CONSUMER_WARPS);
            fence_async();
        }
        __syncthreads();
        if (threadIdx.x < 128) {
            give_registers<40>();
            if (threadIdx.x == 0) each_tile([&] { stream_weights(); });
            else if (threadIdx.x >= 32) each_tile([&] { stream_rows(); });
        } else {
            take_registers<232>();
            load_biases();
            each_tile([&] { compute(); });
        }
    }
};

}  // namespace fastbsn
