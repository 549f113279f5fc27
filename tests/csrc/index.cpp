// Exhaustive check of csrc/block.h (and tensor.h) on the CPU; for tests/csrc/test_index.py, which also compiles it with every
// number of block.h made switchable: `index` checks the code as it is, `index N` with number N off by one.
#include <cstdio>
#include <cstdlib>
#include <map>
#include <set>
#include <vector>

#ifdef MUTANTS
inline int mutant = -1;
#define FASTBSN_FN inline
#define NUMBER(id, x) ((x) + (mutant == (id)))
#endif
#include "../../csrc/tensor.h"

using namespace fastbsn;

#define EXPECT(condition)                                                  \
    do {                                                                   \
        if (!(condition)) {                                                \
            printf("index.cpp:%d: %s\n", __LINE__, #condition);            \
            exit(1);                                                       \
        }                                                                  \
    } while (0)

static int floor_half(int x) { return x >= 0 ? x / 2 : -((1 - x) / 2); }

using Label = std::pair<int, int>;  // global (y, x)
static const Label NONE{1 << 30, 0};

// One ring of one octet per pixel and octet index; addresses out of range end the test.
struct Ring {
    std::vector<std::pair<Label, int>> at;
    explicit Ring(int octets) : at(octets, {NONE, 0}) {}
    void put(int address, Label label, int octet) {
        EXPECT(address >= 0 && address < int(at.size()));
        at[address] = {label, octet};
    }
    bool holds(int address, Label label, int octet) const {
        EXPECT(address >= 0 && address < int(at.size()));
        return at[address] == std::make_pair(label, octet);
    }
};

static void check_pixels(const Block& b) {
    const int M = b.width * b.rows, last = stages(b) - 1;
    EXPECT(computed(b) == M);
    for (int stage = 0; stage <= last; ++stage) {
        std::set<Label> seen;
        for (int m = 0; m < M; ++m) {
            const Pixel at = pixel(b, stage, m);
            EXPECT(seen.insert({at.v, at.u}).second);
            EXPECT(at.v >= 1 - stage && at.v <= b.rows - stage && at.u >= 1 + stage && at.u <= b.width + stage);
            if (m % 16 && b.width % 32 == 0) {  // what a tensor-core tile relies on
                const Pixel before = pixel(b, stage, m - 1);
                EXPECT(at.v == before.v && at.u == before.u + 2);
            }
            const Pixel corner = pixel(b, stage, m % (M / 4));  // four phases of one 2x2 cell
            EXPECT(at.v == corner.v + m / (M / 4) / 2 && at.u == corner.u + m / (M / 4) % 2);
        }
    }
}

static void check_weights(const Block& b) {
    std::set<int> seen;
    int total = 0;
    for (int segment = 0; segment < SEGMENTS; ++segment) {
        const int n = segment < 2 ? b.n[0] : segment == 2 ? b.n[1] : b.n[2];
        const int inputs = segment == 0 ? b.up : segment == 1 ? b.skip : n ? b.n[segment - 2] : 0;
        EXPECT(phases(segment) == (segment ? 1 : 4) && stage_of(segment) == (segment < 2 ? 0 : segment - 1));
        EXPECT(k_steps(b, segment) * 16 == (segment ? 9 * inputs : 4 * inputs) + (segment == 1 ? b.image : 0));
        std::set<std::vector<int>> operands;
        for (int k = 0; k < k_steps(b, segment); ++k) {
            const Operand o = operand(b, segment, k);
            EXPECT(operands.insert({o.source, o.dy, o.dx, o.octet}).second);
            if (segment == 0) EXPECT(o.source == COARSE && o.dy >= 0 && o.dy < 2 && o.dx >= 0 && o.dx < 2);
            else if (o.source == COLUMNS) EXPECT(segment == 1 && o.dy == 0 && o.dx == 0 && o.octet + 1 < b.image / 8);
            else EXPECT(o.source == FINE && abs(o.dy) < 2 && abs(o.dx) < 2);
            if (o.source != COLUMNS) EXPECT(o.octet >= 0 && o.octet % 2 == 0 && o.octet + 1 < inputs / 8);
            for (int q = 0; q < phases(segment); ++q)
                for (int half = 0; half < 2; ++half)
                    for (int i = 0; i < n; ++i, ++total) EXPECT(seen.insert(weight_at(b, segment, k, q, half, i)).second);
            // one k-step is contiguous, and within it 8 output channels of one half are
            EXPECT(weight_at(b, segment, k, 0, 0, 0) == segment_at(b, segment) + k * step_octets(b, segment));
            EXPECT(weight_at(b, segment, k, 0, 1, 0) == weight_at(b, segment, k, 0, 0, 0) + n);
            EXPECT(weight_at(b, segment, k, phases(segment) - 1, 1, n - 1) + 1 == weight_at(b, segment, k, 0, 0, 0) + step_octets(b, segment));
        }
        EXPECT(step_octets(b, segment) <= chunk_octets(b));
    }
    EXPECT(*seen.begin() == 0 && *seen.rbegin() == total - 1 && weight_octets(b) == total);
    EXPECT(chunk_octets(b) == 8 * b.n[0]);
    std::set<int> biases;
    for (int stage = 0; stage < stages(b); ++stage)
        for (int n = 0; n < b.n[stage]; ++n) EXPECT(biases.insert(bias_at(b, stage) + n).second);
    EXPECT(*biases.begin() == 0 && *biases.rbegin() + 1 == bias_count(b) && int(biases.size()) == bias_count(b));
}

static void check_layout(const Block& b) {
    const Layout at = layout(b, 3);
    EXPECT(at.coarse == 0 && at.skip == at.coarse + coarse_octets(b) && at.columns == at.skip + fine_octets(b, b.skip));
    EXPECT(at.image == at.columns + b.image / 8 * b.width * b.rows && at.first == at.image + image_octets(b));
    EXPECT(at.second == at.first + (b.n[1] ? fine_octets(b, b.n[0]) : 0));
    EXPECT(at.middle(0) == at.first && at.middle(1) == at.second && at.weights == at.second + (b.n[2] ? fine_octets(b, b.n[1]) : 0) && at.bias == at.weights + 3 * chunk_octets(b) && 4 * (at.end - at.bias) == bias_count(b));
    const int half = b.width / 2 + 2;  // no larger than needed
    EXPECT(pitch(b) == half && ring(b) == b.rows + 2 && coarse_ring(b) == b.rows / 2 + 1);
    EXPECT(fine_octets(b, 16) == (b.rows + 2) * 2 * 2 * half && coarse_octets(b) == (b.rows / 2 + 1) * b.up / 8 * half);
    std::set<int> columns;
    for (int octet = 0; octet < b.image / 8; ++octet)
        for (int m = 0; m < b.width * b.rows; ++m) EXPECT(columns.insert(columns_at(b, octet, m)).second);
    const int channels = image_channels(b);
    EXPECT(9 * channels <= b.image && 9 * (channels + 1) > b.image);
    std::set<int> image;
    for (int s = 0; s < ring(b); ++s)
        for (int c = 0; c < channels; ++c)
            for (int u = 0; u < b.width + 2; ++u) EXPECT(image.insert(image_at(b, s, c, u)).second);
    if (b.image) EXPECT(*image.begin() == 0 && *image.rbegin() + 1 == int(image.size()) && 8 * image_octets(b) >= int(image.size()) && 8 * image_octets(b) < int(image.size()) + 8);
    if (b.image) EXPECT(*columns.begin() == 0 && *columns.rbegin() + 1 == columns_octets(b) && int(columns.size()) == columns_octets(b));
}

// Phases of the upsampling: which kernel rows fall on which row of the coarser tensor.
static void check_phases() {
    for (int y = -8; y < 8; ++y) {
        const int qy = (y + 1) & 1;  // v = y - ys is 1 + qy modulo 2, ys even
        for (int tap = 0; tap < 2; ++tap) {
            const int coarse = floor_half(y) - 1 + (y & 1) + tap;
            const Range r = summed_taps(parity(qy), tap);
            EXPECT(r.first >= 0 && r.last < 3);
            for (int k = 0; k < 3; ++k) EXPECT((floor_half(y + k - 1) == coarse) == (k >= r.first && k <= r.last));
        }
    }
}

// Follows every value of one image through the rings: each stage must find what the stage before, or the load, put there.
static void check_flow(const Block& b, int h, int w, int steps) {
    Params p{};
    p.batch = 2, p.h = h, p.w = w, p.steps = steps, p.in_channels = 3;
    p.across = tiles_across(b, w, valid_columns(b)), p.down = tiles_across(b, h, valid_rows(b, steps));
    EXPECT(p.across > 0 && p.down > 0 && p.across <= w + 2 && p.down <= h + 2 && tiles(p) == 2 * p.across * p.down);
    const int last = stages(b) - 1;
    std::map<Label, int> outputs;
    for (int64_t index = 0; index < tiles(p); ++index) {
        const Tile t = tile(b, p, index);
        EXPECT(t.n == index / (p.across * p.down));
        if (b.up) EXPECT(t.xs % 2 == 0 && t.ys % 2 == 0);
        Ring image(8 * image_octets(b)), coarse(coarse_octets(b)), skip(fine_octets(b, b.skip)), middle[2] = {Ring(fine_octets(b, b.n[0])), Ring(fine_octets(b, b.n[1]))};
        EXPECT(t.steps <= steps);
        for (int step = 0; step < t.steps; ++step) {
            bool useful = false;
            const int ys = t.ys + step * b.rows;
            for (int octet = 0; octet < b.skip / 8; ++octet)
                for (int v = step ? KEPT : 0; v < ring(b); ++v)
                    for (int u = 0; u < b.width + 2; ++u) skip.put(fine_at(b, b.skip, slot(b, step, v), octet, u), {ys + v, t.xs + u}, octet);
            for (int c = 0; c < image_channels(b); ++c)
                for (int v = step ? KEPT : 0; v < ring(b); ++v)
                    for (int u = 0; u < b.width + 2; ++u) image.put(image_at(b, slot(b, step, v), c, u), {ys + v, t.xs + u}, c);
            for (int octet = 0; octet < b.up / 8; ++octet)
                for (int row = step ? COARSE_KEPT : 0; row < coarse_ring(b); ++row)
                    for (int c = 0; c < b.width / 2 + 1; ++c)
                        coarse.put(coarse_at(b, coarse_slot(b, step, row), octet, c), {floor_half(ys) + row, floor_half(t.xs) + c}, octet);
            for (int stage = 0; stage <= last; ++stage)
                for (int m = 0; m < b.width * b.rows; ++m) {
                    const Pixel at = pixel(b, stage, m);
                    const int y = ys + at.v, x = t.xs + at.u, margin = last - stage;  // needed by an output of this tile?
                    const bool needed = y >= t.y - margin && y < std::min(t.y + steps * b.rows - 2 * last, h) + margin && x >= t.x - margin &&
                                        x < t.x + b.width - 2 * last + margin;
                    if (needed)
                        for (int segment = stage ? stage + 1 : 0; segment <= stage + 1; ++segment)
                            for (int k = 0; k < k_steps(b, segment); ++k) {
                                const Operand o = operand(b, segment, k);
                                for (int octet = o.octet; octet < o.octet + 2; ++octet) {
                                    if (o.source == COARSE) {
                                        const int row = (at.v - 1) / 2 + o.dy, c = (at.u - 1) / 2 + o.dx;
                                        const Label label{floor_half(y) - 1 + (y & 1) + o.dy, floor_half(x) - 1 + (x & 1) + o.dx};
                                        EXPECT(coarse.holds(coarse_at(b, coarse_slot(b, step, row), octet, c), label, octet));
                                    } else if (o.source == FINE) {
                                        const Ring& from = stage ? middle[stage - 1] : skip;
                                        const int channels = stage ? b.n[stage - 1] : b.skip;
                                        const int address = fine_at(b, channels, slot(b, step, at.v + o.dy), octet, at.u + o.dx);
                                        EXPECT(from.holds(address, {y + o.dy, x + o.dx}, octet));
                                    }
                                }
                            }
                    for (int k = 0; needed && !stage && k < 9 * image_channels(b); ++k) {
                        const int c = k / 9, dy = k % 9 / 3 - 1, dx = k % 3 - 1;
                        EXPECT(image.holds(image_at(b, slot(b, step, at.v + dy), c, at.u + dx), {y + dy, x + dx}, c));
                        EXPECT(image_at(b, 0, c, dx) + image_at(b, slot(b, step, at.v + dy), 0, at.u) == image_at(b, slot(b, step, at.v + dy), c, at.u + dx));
                    }
                    if (stage < last)
                        for (int octet = 0; octet < b.n[stage] / 8; ++octet)
                            middle[stage].put(fine_at(b, b.n[stage], slot(b, step, at.v), octet, at.u), {y, x}, octet);
                    else if (is_output(b, p, t, y, x)) {
                        EXPECT(needed && inside(p, y, x));
                        if (b.pool && m < computed(b) / 4) EXPECT(y % 2 == 0 && x % 2 == 0);
                        ++outputs[{t.n * h + y, x}];
                        useful = true;
                    }
                }
            EXPECT(useful || (t.y < 0 && step == 0) || step + 1 < t.steps);
        }
    }
    EXPECT(int(outputs.size()) == 2 * h * w);
    for (const auto& [at, count] : outputs) EXPECT(count == 1);
}

static void check_tensors() {
    int next = 0;
    for (int n = 0; n < 2; ++n)
        for (int octet = 0; octet < 3; ++octet)
            for (int y = 0; y < 5; ++y)
                for (int x = 0; x < 7; ++x) EXPECT(tensor_at(3, 5, 7, n, octet, y, x) == next++);
    EXPECT(tensor_at(36, 16384, 16384, 1, 35, 16383, 16383) == 72ll * 16384 * 16384 - 1);
}

int main(int argc, char** argv) {
    (void)argc, (void)argv;
#ifdef MUTANTS
    if (argc > 1) mutant = atoi(argv[1]);
#endif
    check_tensors();
    check_phases();
    const Block blocks[] = {
        {0, 0, 32, {16, 16, 0}, true, 64, 4}, {0, 16, 0, {16, 0, 0}, true, 64, 4},  {0, 16, 0, {16, 0, 0}, false, 8, 4},
        {16, 16, 0, {48, 32, 0}, false, 32, 4}, {32, 16, 0, {16, 16, 0}, false, 128, 2}, {32, 0, 48, {32, 16, 8}, false, 32, 4},
        {16, 0, 32, {16, 16, 8}, false, 16, 2},
    };
    for (const Block& b : blocks) {
        EXPECT(stages(b) == 1 + (b.n[1] > 0) + (b.n[2] > 0) && !(b.skip && b.image));
        check_pixels(b), check_weights(b), check_layout(b);
        for (int steps : {3, 5})
            for (int size : {2, 14, 60, 62, 64, 66}) check_flow(b, size, 2, steps), check_flow(b, 2, 2 * size, steps);
        check_flow(b, 26, 70, 4);
    }
    check_pixels({48, 48, 0, {96, 96, 0}, false, 64, 4}), check_weights({96, 48, 0, {96, 96, 0}, false, 64, 4});
    check_weights({96, 0, 32, {64, 32, 8}, false, 64, 4});
    return 0;
}
