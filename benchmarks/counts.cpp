// What a plan makes of one image size, block by block, as JSON lines; for benchmarks/counts.py.
#include <cstdio>
#include <cstdlib>

#include "plan.h"

using namespace fastbsn;

int main(int, char** argv) {  // in_channels, depth, batch, h, w, path, bytes of shared memory for a block, processors
    const auto number = [&](int i) { return atoi(argv[i]); };
    const Plan plan({number(1), 48, number(2)}, number(3), number(4), number(5), Path(number(6)), number(7), number(8));
    for (const Op& op : plan.ops) {
        const Params& p = op.params;
        double computed_work = 0, useful = 0;  // multiply-accumulates
        for (int segment = 0; segment < SEGMENTS; ++segment) {
            const double work = 16.0 * k_steps(op.block, segment) * op.block.n[stage_of(segment)];
            computed_work += work * tiles(p) * WORK(op.block, p, stage_of(segment)), useful += work * p.batch * p.h * p.w;
        }
        printf("{\"level\": %d, \"stages\": %d, \"width\": %d, \"rows\": %d, \"steps\": %d, \"tiles\": %lld, \"macs\": %.0f, \"useful_macs\": %.0f}\n",
               op.level, stages(op.block), op.block.width, op.block.rows, p.steps, (long long)tiles(p), computed_work, useful);
    }
    return 0;
}
