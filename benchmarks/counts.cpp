// What a plan makes of one image size, block by block, as JSON; for benchmarks/counts.py.
#include <cstdio>
#include <cstdlib>

#include "instances.h"
#include "plan.h"

using namespace fastbsn;

// Of a tile; every step was taken in sources where a tile does not know.
template <class T>
int steps(const T& t, const Params& p) {
    if constexpr (requires { t.steps; }) return t.steps;
    else return p.steps;
}

// Number of the kernel that runs a block, as in instances.h.
template <const auto& blocks>
int kernel(const Block& b) {
    int found = -1;
    dispatch<blocks>(b, [&]<int index>() { found = index; });
    return found;
}

int main(int, char** argv) {  // batch, channels, h, w, path, bytes of shared memory for a block, processors
    int number[7];
    for (int i = 0; i < 7; ++i) number[i] = atoi(argv[i + 1]);
    const auto [batch, channels, h, w, path, shared, processors] = number;
    const Plan plan({channels, 48, 5}, batch, h, w, Path(path), shared, processors);
    for (const Op& op : plan.ops) {
        const Params& p = op.params;
        int64_t pixels = 0, longest = 0;
        for (int64_t i = 0; i < tiles(p); ++i) pixels += int64_t(computed(op.block)) * steps(tile(op.block, p, i), p);
        for (int64_t first = 0; first < std::min<int64_t>(processors, tiles(p)); ++first) {  // one thread block per processor
            int64_t taken = 0;
            for (int64_t i = first; i < tiles(p); i += processors) taken += steps(tile(op.block, p, i), p);
            longest = std::max(longest, taken);
        }
        int work = 0;  // multiply-accumulates per pixel
        for (int segment = 0; segment < SEGMENTS; ++segment) work += 16 * k_steps(op.block, segment) * op.block.n[stage_of(segment)];
        int64_t bytes = 0;  // read and written once; the image is float32
        for (int b : {op.coarse, op.fine, op.out}) {
            if (b >= 0) bytes += 2LL * batch * plan.buffers[b].channels * plan.buffers[b].h * plan.buffers[b].w;
        }
        if (op.coarse < 0 && op.fine < 0) bytes += 4LL * batch * channels * h * w;
        if (op.out < 0) bytes += 2 * 4LL * batch * channels * h * w;
        const Block& b = op.block;  // through L2: weights for every step, rows of a tile with its halo, the result
        const int64_t all_steps = pixels / computed(b), image = b.image ? 4LL * channels * image_pitch(b) : 0;
        const int64_t row = 2LL * b.skip * 2 * pitch(b) + image, coarse_row = 2LL * b.up * pitch(b);
        int64_t l2 = all_steps * (16LL * weight_octets(b) + b.rows * row + b.rows / 2 * coarse_row);
        l2 += tiles(p) * (KEPT * row + COARSE_KEPT * coarse_row);
        if (op.out >= 0) l2 += 2LL * batch * plan.buffers[op.out].channels * plan.buffers[op.out].h * plan.buffers[op.out].w;
        else l2 += 2 * 4LL * batch * channels * h * w;
        const int index = path == HOPPER ? kernel<HOPPER_BLOCKS>(op.block) : kernel<PORTABLE_BLOCKS>(op.block);
        printf("{\"level\": %d, \"stages\": %d, \"upsamples\": %s, \"width\": %d, \"tiles\": %lld, \"computed\": %lld, \"useful\": %lld, \"longest\": %lld, \"macs\": %d, \"kernel\": %d, \"columns\": %d, \"bytes\": %lld, \"l2\": %lld}\n",
               op.level, stages(op.block), op.block.up ? "true" : "false", op.block.width, (long long)tiles(p), (long long)pixels,
               (long long)batch * p.h * p.w, (long long)(longest * computed(op.block)), work, index,
               op.block.n[0], (long long)bytes, (long long)l2);
    }
    return 0;
}
