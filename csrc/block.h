// Address arithmetic of one fused block, shared by the host, the reference kernel and the tensor-core kernels.
//
// A block is one to three 3x3 convolutions (stages) at one resolution, executed on tiles: `width` computed columns by
// `steps * rows` computed rows that stream downwards, `rows` at a time, through rings in shared memory. Each stage after
// the first loses one pixel on every side, so stage s is right on (width - 2s) x (steps * rows - 2s) pixels.
//
// Local coordinates: row v and column u count from the tile's origin (ys, xs), which advances by `rows` per step. Stage s
// computes v = 2r + 1 - s + qy and u = 2i + 1 + s + qx; q = (qy, qx) is the phase of the pixel in its 2x2 cell (r, i).
// Activations are planes of octets (8 channels, 16 bytes): [N][C/8][H][W][8] bf16. In shared memory the columns of a row
// are split by parity, so that 8 neighbours of one phase are 128 contiguous bytes and a tap is only an address offset.
#pragma once
#include <cstdint>

#if defined(__CUDACC__)
#define FASTBSN_FN __host__ __device__ constexpr
#elif !defined(FASTBSN_FN)
#define FASTBSN_FN constexpr
#endif

namespace fastbsn {

struct Block {
    int up;     // channels of the coarser tensor that is upsampled, 0 if none; all channel counts are padded to 16
    int skip;   // channels of the tensor at this resolution, 0 if none; not together with an image
    int image;  // rows of the im2col matrix of the image, 9 * in_channels padded to 16 (32 at least), 0 if none
    int n[3];   // output channels of each stage, 0 if absent; the third, an image, is padded to 8
    bool pool;  // 2x2 max pool of the last stage
    int width, rows;
    bool operator==(const Block&) const = default;
};

struct Pixel {
    int v, u;
};

enum Source { COARSE, FINE, COLUMNS };  // upsampled tensor; tensor of this resolution; im2col of the image

struct Operand {  // of one k-step: 16 rows of the weight matrix, all of one tap
    Source source;
    int dy, dx;  // COARSE: 0 or 1 in the coarser tensor; FINE: -1, 0 or 1
    int octet;   // first of the two octets of channels, or of im2col rows
};

FASTBSN_FN int ceil_div(int a, int b) { return (a + b - 1) / b; }

// ---- tiles ----
FASTBSN_FN int stages(const Block& b) { return b.n[2] ? 3 : b.n[1] ? 2 : 1; }
FASTBSN_FN int computed(const Block& b) { return b.width * b.rows; }
FASTBSN_FN int valid_columns(const Block& b) { return b.width - 2 * (stages(b) - 1); }
FASTBSN_FN int valid_rows(const Block& b, int steps) { return steps * b.rows - 2 * (stages(b) - 1); }

// First output row or column of a tile; with three stages it is odd, so that the origin of every upsampling tile is even.
FASTBSN_FN int first_output(const Block& b, int tile, int valid) { return tile * valid - (stages(b) == 3); }
FASTBSN_FN int origin(const Block& b, int first) { return first - stages(b); }
// Steps of the tile whose first output row is `first`, in an image of h rows: those below its last row would be for nothing.
FASTBSN_FN int steps_of(const Block& b, int first, int h, int steps) {
    const int needed = ceil_div(h - first + 2 * (stages(b) - 1), b.rows);
    return needed < steps ? needed : steps;
}
FASTBSN_FN int tiles_across(const Block& b, int size, int valid) { return ceil_div(size + (stages(b) == 3), valid); }

FASTBSN_FN Pixel pixel(const Block& b, int stage, int m) {
    const int cells = computed(b) / 4, half = b.width / 2, q = m / cells, r = m % cells / half, i = m % half;
    return {2 * r + 1 - stage + (q >> 1), 2 * i + 1 + stage + (q & 1)};
}

// ---- shared memory, in octets ----
FASTBSN_FN int pitch(const Block& b) { return b.width / 2 + 2; }  // pixels of one parity in a row
FASTBSN_FN int ring(const Block& b) { return b.rows + 2; }        // rows of a ring at this resolution
FASTBSN_FN int coarse_ring(const Block& b) { return b.rows / 2 + 1; }
constexpr int KEPT = 2, COARSE_KEPT = 1;                          // first rows of a step that the step before had already
FASTBSN_FN int slot(const Block& b, int step, int v) { return (step * b.rows + v + ring(b)) % ring(b); }  // v >= -2
FASTBSN_FN int coarse_slot(const Block& b, int step, int row) { return (step * (b.rows / 2) + row) % coarse_ring(b); }

FASTBSN_FN int fine_at(const Block& b, int channels, int slot, int octet, int u) {
    return ((slot * (channels / 8) + octet) * 2 + (u & 1)) * pitch(b) + (u >> 1);
}
FASTBSN_FN int coarse_at(const Block& b, int slot, int octet, int column) { return (slot * (b.up / 8) + octet) * pitch(b) + column; }
FASTBSN_FN int columns_at(const Block& b, int octet, int m) { return octet * computed(b) + m; }
FASTBSN_FN int image_channels(const Block& b) { return b.image / 9; }  // that there is room for
FASTBSN_FN int image_pitch(const Block& b) { return b.width + 2; }
FASTBSN_FN int image_at(const Block& b, int slot, int channel, int u) {  // in values of 2 bytes
    return (slot * image_channels(b) + channel) * image_pitch(b) + u;
}

FASTBSN_FN int fine_octets(const Block& b, int channels) { return ring(b) * (channels / 8) * 2 * pitch(b); }
FASTBSN_FN int coarse_octets(const Block& b) { return coarse_ring(b) * (b.up / 8) * pitch(b); }
FASTBSN_FN int columns_octets(const Block& b) { return b.image / 8 * computed(b); }
FASTBSN_FN int image_octets(const Block& b) { return ceil_div(image_at(b, ring(b), 0, 0), 8); }

// ---- biases, fp32, of all stages ----
FASTBSN_FN int bias_at(const Block& b, int stage) {
    int at = 0;
    for (int s = 0; s < stage; ++s) at += b.n[s];
    return at;
}
FASTBSN_FN int bias_count(const Block& b) { return bias_at(b, stages(b)); }

struct Layout {  // first octet of each part
    int coarse, skip, columns, image, first, second, weights, bias, end;
    FASTBSN_FN int middle(int stage) const { return stage ? second : first; }
};
FASTBSN_FN int chunk_octets(const Block& b) { return 8 * b.n[0]; }  // one k-step of four phases, or four of one
FASTBSN_FN Layout layout(const Block& b, int chunks) {
    Layout at{};
    at.skip = at.coarse + coarse_octets(b);
    at.columns = at.skip + fine_octets(b, b.skip);
    at.image = at.columns + columns_octets(b);
    at.first = at.image + image_octets(b);
    at.second = at.first + (stages(b) > 1 ? fine_octets(b, b.n[0]) : 0);
    at.weights = at.second + (stages(b) > 2 ? fine_octets(b, b.n[1]) : 0);
    at.bias = at.weights + chunks * chunk_octets(b);
    at.end = at.bias + bias_count(b) / 4;
    return at;
}

// ---- weights: segments of k-steps; a k-step is [phase][2][N][8], phases only in segment 0 ----
constexpr int SEGMENTS = 4;  // upsampled part of stage 0, the rest of stage 0, stage 1, stage 2
FASTBSN_FN int stage_of(int segment) { return segment < 2 ? 0 : segment - 1; }
FASTBSN_FN int phases(int segment) { return segment == 0 ? 4 : 1; }
FASTBSN_FN int k_steps(const Block& b, int segment) {
    if (segment == 0) return 4 * b.up / 16;
    if (segment == 1) return (9 * b.skip + b.image) / 16;
    return b.n[segment - 1] ? 9 * b.n[segment - 2] / 16 : 0;
}
FASTBSN_FN int step_octets(const Block& b, int segment) { return phases(segment) * 2 * b.n[stage_of(segment)]; }
FASTBSN_FN int segment_at(const Block& b, int segment) {
    int at = 0;
    for (int s = 0; s < segment; ++s) at += k_steps(b, s) * step_octets(b, s);
    return at;
}
FASTBSN_FN int weight_octets(const Block& b) { return segment_at(b, SEGMENTS); }
FASTBSN_FN int weight_at(const Block& b, int segment, int k, int q, int half, int n) {
    const int N = b.n[stage_of(segment)];
    return segment_at(b, segment) + k * step_octets(b, segment) + (q * 2 + half) * N + n;
}

FASTBSN_FN Operand operand(const Block& b, int segment, int k) {
    if (segment == 0) {
        const int per_tap = b.up / 16, tap = k / per_tap;
        return {COARSE, tap >> 1, tap & 1, 2 * (k % per_tap)};
    }
    if (segment == 1 && b.image) return {COLUMNS, 0, 0, 2 * k};
    const int per_tap = (segment == 1 ? b.skip : b.n[segment - 2]) / 16, tap = k / per_tap;
    return {FINE, tap / 3 - 1, tap % 3 - 1, 2 * (k % per_tap)};
}

// Nearest upsampling by 2 before a 3x3 convolution: on a pixel of parity p, rows [first, last] of the kernel fall on row
// `tap` of the 2x2 window of the coarser tensor; likewise for columns.
struct Range {
    int first, last;
};
FASTBSN_FN Range summed_taps(int parity, int tap) {
    return parity == 0 ? (tap == 0 ? Range{0, 0} : Range{1, 2}) : (tap == 0 ? Range{0, 1} : Range{2, 2});
}
FASTBSN_FN int parity(int q) { return 1 - q; }  // of stage 0 in an upsampling tile, whose origin is even

// ---- global memory, in octets; `octets` = C / 8 ----
FASTBSN_FN int64_t tensor_at(int octets, int h, int w, int n, int octet, int y, int x) {
    return ((int64_t(n) * octets + octet) * h + y) * w + x;
}

}  // namespace fastbsn
