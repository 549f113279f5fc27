// What a plan makes of one image size, block by block, as JSON; for benchmarks/counts.py.
#include <cstdio>
#include <cstdlib>

#include "plan.h"

using namespace fastbsn;

// Of a tile; every step was taken in sources where a tile does not know.
template <class T>
int steps(const T& t, const Params& p) {
    if constexpr (requires { t.steps; }) return t.steps;
    else return p.steps;
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
        printf("{\"level\": %d, \"stages\": %d, \"upsamples\": %s, \"width\": %d, \"tiles\": %lld, \"computed\": %lld, \"useful\": %lld, \"longest\": %lld, \"macs\": %d}\n",
               op.level, stages(op.block), op.block.up ? "true" : "false", op.block.width, (long long)tiles(p), (long long)pixels,
               (long long)batch * p.h * p.w, (long long)(longest * computed(op.block)), work);
    }
    return 0;
}
