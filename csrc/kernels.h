// The kernels of each path as launchable functions. All take (Block, Params) by value, but for the module of the teacher: mdc::Params.
#pragma once
#include "plan.h"

namespace fastbsn {

struct Kernel {
    const void* function;  // null if no kernel is built for the block
    int threads, shared_bytes;
};

Kernel reference_kernel(const Block& block);
Kernel portable_kernel(const Block& block);
Kernel hopper_kernel(const Block& block);
Kernel mdc_kernel(bool half);

}  // namespace fastbsn
