// The module of the teacher on the emulated GPU; for tests/csrc/test_mdc.py.
#include "emulate_mdc.h"
//
#include "../../csrc/mdc.h"

using namespace fastbsn;

template <bool HALF>
static void run(const mdc::Params& p, unsigned grid, unsigned seed) {
    for (unsigned index = 0; index < grid; ++index) {
        emulate::reset_hopper();
        emulate::run(index, grid, Mdc<HALF>::THREADS, Mdc<HALF>::SHARED_BYTES, mdc::WEIGHTS, seed + index,
                     [&] { Mdc<HALF>(p, emulate::block->shared.data()).run(); });
    }
}

// Addresses of activations at the position of the first pixel; y is written.
extern "C" void run_mdc(int half, uint16_t* x, uint16_t* y, uint8_t* inside, uint16_t* weights, float* bias, int images, int h, int w, int rows,
                        int pitch, int grid, unsigned seed, emulate::Counts* counts) {
    const mdc::Params p{x, y, inside, weights, bias, images, h, w, rows, pitch};
    emulate::counts = {};
    half ? run<true>(p, grid, seed) : run<false>(p, grid, seed);
    *counts = emulate::counts;
}

// Every tile of an image: how many times a position would be written; and the descriptors of a tap, as pixels.
extern "C" void cover(int images, int h, int w, int rows, int pitch, int32_t* written) {
    const mdc::Params p{nullptr, nullptr, nullptr, nullptr, nullptr, images, h, w, rows, pitch};
    for (int i = 0; i < mdc::tiles(p); ++i) {
        const mdc::Tile t = mdc::tile(p, i);
        for (int y = t.y; y < t.y + mdc::TILE; ++y)
            for (int x = t.x; x < t.x + mdc::TILE; ++x)
                if (mdc::exists(p, y, x)) ++written[mdc::position(p, t.image, y, x)];
    }
}
