// Runs a plan on the CPU, one thread: the oracle of the GPU kernels.
#pragma once
#include "plan.h"
#include "reference.h"

namespace fastbsn {

inline void run_on_host(const std::vector<Op>& ops) {
    for (const Op& op : ops) {
        const Block& b = op.block;
        // Poisoned, so that a pixel that was never computed cannot pass unseen.
        std::vector<uint16_t> middle(8 * size_t(layout(b, 0).weights - layout(b, 0).first));
        for (int64_t index = 0; index < tiles(op.params); ++index) {
            std::fill(middle.begin(), middle.end(), uint16_t(0x7fc0));
            run_tile(b, op.params, index, middle.data(), 0, 1, [] {});
        }
    }
}

}  // namespace fastbsn
