// Sizes, tiles and addresses of the kernel of mdc.h, for host and device.
#pragma once
#include "tensor.h"

namespace fastbsn {
namespace mdc {

constexpr int CHANNELS = 96, OCTETS = CHANNELS / 8, K_STEPS = CHANNELS / 16;
constexpr int TILE = 16, HALO = 2, EDGE = TILE + 2 * HALO, PLANE = EDGE * EDGE;  // PLANE: pixels of a tile with its halo
enum Bias { A1, A2, B1, B2, C, JOIN, T1, T2, BIASES };                           // as in kernels/slots.py
constexpr int PRODUCTS = 42;  // matrices, in the order of their use: a1, 25 taps, join of a, c, join of c, b1, 9 taps, join of b, t1, t2
constexpr int CHUNKS = 4;     // matrices in shared memory

// Shared memory, in bytes.
constexpr int ARRAY_BYTES = 16 * OCTETS * PLANE;  // [octet][pixel][8]
constexpr int MATRIX_BYTES = 2 * CHANNELS * CHANNELS;  // [octet of inputs][output][8]
constexpr int WEIGHTS = 2 * ARRAY_BYTES, BIAS = WEIGHTS + CHUNKS * MATRIX_BYTES, INSIDE = BIAS + 4 * BIASES * CHANNELS,
              BARRIERS = INSIDE + 2 * 2 * PLANE, SHARED_BYTES = BARRIERS + 8 * (2 * CHUNKS + 2);
static_assert(SHARED_BYTES <= 232448 && BARRIERS % 16 == 0);

struct Params {  // activations [positions][96], see kernels/layout.py; y may not be x
    const uint16_t* x;
    uint16_t* y;              // written where a pixel, or a position outside a phase's extent, is; not between images and rows
    const uint8_t* inside;    // [positions], 1 where there is a pixel
    const uint16_t* weights;  // [PRODUCTS][octet of inputs][output][8]
    const float* bias;        // [BIASES][96]
    int images, h, w;         // images, or phase images
    int rows, pitch;          // positions from image to image: rows * pitch
};

struct Tile {
    int image, y, x;  // first pixel
};

FASTBSN_FN int across(const Params& p) { return (p.w + TILE - 1) / TILE; }
FASTBSN_FN int down(const Params& p) { return (p.h + TILE - 1) / TILE; }
FASTBSN_FN int64_t tiles(const Params& p) { return int64_t(p.images) * down(p) * across(p); }  // fewer than 2^31, as positions are
FASTBSN_FN Tile tile(const Params& p, int index) {
    const int row = index / across(p);
    return {row / down(p), row % down(p) * TILE, index % across(p) * TILE};
}
FASTBSN_FN bool exists(const Params& p, int y, int x) { return y >= 0 && y < p.h && x >= 0 && x < p.w; }
FASTBSN_FN int64_t position(const Params& p, int image, int y, int x) { return (int64_t(image) * p.rows + y) * p.pitch + x; }

// Pixel of a tile with its halo that stands first in patch j of a group, moved by (dy, dx): where the operand of a tap begins.
FASTBSN_FN int patch(int group, int j, int dy, int dx) { return (8 * group + HALO + dy) * EDGE + 8 * j + HALO + dx; }

// The 1x1 layers in front of the taps run on the halo too: on 8 runs of 64 pixels, those that do not fit moved up to end with the plane.
FASTBSN_FN int run_first(int run) { return 64 * run <= PLANE - 64 ? 64 * run : PLANE - 64; }

}  // namespace mdc

}  // namespace fastbsn
