#include "plan.h"

namespace fastbsn {
namespace {

constexpr int64_t ALIGN = 256;
constexpr int64_t align(int64_t bytes) { return (bytes + ALIGN - 1) / ALIGN * ALIGN; }

// The blocks of the network from the image to the result; buffers are numbered in the order in which they are written.
std::vector<Op> blocks(Config c) {
    std::vector<Op> ops;
    const auto add = [&](int level, int up, int skip, bool image, int n0, int n1, int n2, bool pool) -> Op& {
        Op op{};
        op.block = {pad(up, 16), pad(skip, 16), image ? std::max(32, pad(9 * c.in_channels, 16)) : 0, {pad(n0, 16), pad(n1, 16), pad(n2, 8)}, pool, 0, 0};
        op.up = up, op.skip = skip, op.level = level, op.coarse = op.fine = -1, op.out = n2 ? -1 : int(ops.size());
        op.n[0] = n0, op.n[1] = n1, op.n[2] = n2;
        return ops.emplace_back(op);
    };
    const int w = c.channels;
    add(0, 0, 0, true, w, w, 0, true);
    for (int level = 1; level <= c.depth; ++level) add(level, 0, w, false, w, 0, 0, level < c.depth).fine = level - 1;
    for (int level = c.depth - 1; level > 0; --level) {
        Op& op = add(level, level == c.depth - 1 ? w : 2 * w, w, false, 2 * w, 2 * w, 0, false);
        op.fine = level - 1, op.coarse = op.out - 1;
    }
    add(0, c.depth == 1 ? w : 2 * w, 0, true, w * 4 / 3, w * 2 / 3, c.in_channels, false);
    ops.back().coarse = ops[ops.size() - 2].out;
    return ops;
}

void choose_geometry(Block& block, Path path, int64_t shared, int columns) {
    const int widest = path == HOPPER ? 128 : path == PORTABLE ? 64 : 32;
    block.rows = path == HOPPER && block.up ? 2 : 4;
    for (block.width = widest; block.width > 4 && shared_bytes(block, path) > shared;) block.width /= 2;
    if (path != PORTABLE || !block.up || block.width < 64) return;
    Block narrow = block;  // of 32 columns, which waste less where an image is not much wider than a tile
    narrow.width = 32;
    const auto work = [&](const Block& b) { return int64_t(b.width) * tiles_across(b, columns, valid_columns(b)); };
    if (10 * work(block) > 11 * work(narrow)) block = narrow;  // its products share fewer loads
}

// The number of steps by which the thread blocks that work on the most tiles have the fewest steps; each tile begins with a wait for its
// rows, which costs about one.
int choose_steps(const Op& op, int batch, int processors) {
    const Block& b = op.block;
    const int across = tiles_across(b, op.params.w, valid_columns(b)), lost = 2 * (stages(b) - 1);
    const int fewest = ceil_div(lost + 2, b.rows), most = std::clamp(ceil_div(op.params.h + lost + (lost == 4), b.rows), fewest, 64);
    int best = most;
    int64_t least = INT64_MAX;
    for (int steps = most; steps >= fewest; --steps) {
        const int64_t tiles = int64_t(batch) * across * tiles_across(b, op.params.h, valid_rows(b, steps));
        const int64_t cost = (tiles + processors - 1) / processors * (steps + 1);
        if (cost < least) least = cost, best = steps;
    }
    return best;
}

int64_t kernel_channel(const Op& op, int segment, const Operand& o, int row, int in_channels, int& tap) {
    const int channel = o.octet * 8 + row;
    if (o.source == COLUMNS) {
        tap = channel / in_channels;
        return tap < 9 ? op.up + channel % in_channels : -1;
    }
    tap = (o.dy + 1) * 3 + o.dx + 1;
    const int count = segment == 1 ? op.skip : op.n[segment - 2];
    return channel < count ? (segment == 1 ? op.up : 0) + channel : -1;
}

// The fp32 weight that stands at row `row` of k-step k for phase q and output channel n: a sum over the taps of an upsampled
// pixel, zero in the padding.
float weight_value(const Op& op, const Layer& layer, int segment, int k, int q, int row, int n, int in_channels) {
    const int stage = stage_of(segment), inputs = stage == 0 ? op.up + (op.skip ? op.skip : in_channels) : op.n[stage - 1];
    if (n >= op.n[stage]) return 0;
    const Operand o = operand(op.block, segment, k);
    if (o.source == COARSE) {
        const int channel = o.octet * 8 + row;
        if (channel >= op.up) return 0;
        const Range ys = summed_taps(parity(q >> 1), o.dy), xs = summed_taps(parity(q & 1), o.dx);
        float sum = 0;
        for (int y = ys.first; y <= ys.last; ++y)
            for (int x = xs.first; x <= xs.last; ++x) sum += layer.weight[(int64_t(n) * inputs + channel) * 9 + y * 3 + x];
        return sum;
    }
    int tap;
    const int64_t channel = kernel_channel(op, segment, o, row, in_channels, tap);
    return channel < 0 ? 0 : layer.weight[(int64_t(n) * inputs + channel) * 9 + tap];
}

}  // namespace

int64_t shared_bytes(const Block& block, Path path) {
    const Layout at = layout(block, path == HOPPER ? 4 : 2);
    return path == REFERENCE ? 16 * int64_t(at.weights - at.first) : 16 * int64_t(at.end) + (path == HOPPER ? 128 : 0);  // barriers
}

std::string Plan::why_not(Config config, Path path, int64_t shared) {
    const std::string net = "in_channels=" + std::to_string(config.in_channels) + ", channels=" + std::to_string(config.channels) +
                            ", depth=" + std::to_string(config.depth);
    if (config.in_channels < 1 || config.depth < 1 || config.depth > 16 || config.channels < 6 || config.channels % 6 || config.channels > 1536)
        return "not a U-Net: " + net + "; expected in_channels >= 1, depth 1 to 16, channels a multiple of 6 up to 1536";
    if (path != REFERENCE && (config.channels != 48 || config.in_channels > 3 || config.depth < 2))
        return "the tensor-core kernels are built for channels=48, in_channels <= 3, depth >= 2; got " + net;
    for (Op& op : blocks(config)) {
        choose_geometry(op.block, path, shared, 1 << 20);
        const int narrowest = path == REFERENCE ? 8 : path == HOPPER ? 128 : op.block.up ? 32 : 64;
        if (op.block.width < narrowest)
            return "a block of the network needs more shared memory than the " + std::to_string(shared / 1024) + " KiB that this GPU has for one";
    }
    return "";
}

Plan::Plan(Config config, int batch, int h, int w, Path path, int64_t shared, int processors)
    : config(config), batch(batch), h(h), w(w), path(path) {
    const std::string reason = why_not(config, path, shared);
    if (!reason.empty()) throw std::invalid_argument(reason);
    if (batch < 1 || h < 1 || w < 1 || h > (1 << 20) || w > (1 << 20) || processors < 1)
        throw std::invalid_argument("images of " + std::to_string(batch) + " x " + std::to_string(h) + " x " + std::to_string(w) +
                                    "; expected sizes from 1 to 1048576");
    padded_h = pad(h, 1 << config.depth), padded_w = pad(w, 1 << config.depth);
    ops = blocks(config);
    for (Op& op : ops) {
        Params& p = op.params;
        p.in_channels = config.in_channels, p.batch = batch, p.h = padded_h >> op.level, p.w = padded_w >> op.level;
        choose_geometry(op.block, path, shared, p.w);
        p.steps = choose_steps(op, batch, processors);
        p.across = tiles_across(op.block, p.w, valid_columns(op.block));
        p.down = tiles_across(op.block, p.h, valid_rows(op.block, p.steps));
        if (op.out >= 0) {
            const Buffer out{op.block.n[op.block.n[1] ? 1 : 0], p.h >> op.block.pool, p.w >> op.block.pool, arena_bytes};
            arena_bytes += align(2 * int64_t(batch) * out.channels * out.h * out.w);
            buffers.push_back(out);
        }
        op.weights = weight_bytes, op.bias = weight_bytes + align(16 * int64_t(weight_octets(op.block)));
        weight_bytes = op.bias + align(4 * bias_count(op.block));
    }
}

void Plan::pack(const std::vector<Layer>& layers, uint8_t* destination) const {
    if (int(layers.size()) != this->layers())
        throw std::invalid_argument("got " + std::to_string(layers.size()) + " layers; expected " + std::to_string(this->layers()));
    memset(destination, 0, weight_bytes);
    auto layer = layers.begin();
    for (const Op& op : ops) {
        const Block& b = op.block;
        uint16_t* const weights = reinterpret_cast<uint16_t*>(destination + op.weights);
        float* const bias = reinterpret_cast<float*>(destination + op.bias);
        for (int segment = 0; segment < SEGMENTS; ++segment) {
            const int stage = stage_of(segment);
            for (int k = 0; k < k_steps(b, segment); ++k)
                for (int q = 0; q < phases(segment); ++q)
                    for (int row = 0; row < 16; ++row)
                        for (int n = 0; n < b.n[stage]; ++n)
                            weights[8 * weight_at(b, segment, k, q, row / 8, n) + row % 8] =
                                to_bf16(weight_value(op, layer[stage], segment, k, q, row, n, config.in_channels));
        }
        for (int stage = 0; stage < stages(b); ++stage, ++layer) std::copy_n(layer->bias, op.n[stage], bias + bias_at(b, stage));
    }
}

std::vector<Op> Plan::bind(uint8_t* arena, const uint8_t* weights, Image image, Image result) const {
    std::vector<Op> bound = ops;
    const auto tensor = [&](int index) {
        if (index < 0) return Tensor{};
        const Buffer& b = buffers[index];
        return Tensor{reinterpret_cast<uint16_t*>(arena + b.offset), b.channels, b.h, b.w};
    };
    for (Op& op : bound) {
        Params& p = op.params;
        p.coarse = tensor(op.coarse), p.skip = tensor(op.fine), p.out = tensor(op.out);
        p.image = image, p.result = result;
        p.weights = reinterpret_cast<const uint16_t*>(weights + op.weights);
        p.bias = reinterpret_cast<const float*>(weights + op.bias);
    }
    return bound;
}

}  // namespace fastbsn
