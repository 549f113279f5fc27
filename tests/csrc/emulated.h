// The tensor-core kernels on the emulated GPU.
#pragma once
#include "emulate.h"
//
#include "../../csrc/host.h"
#include "../../csrc/instances.h"
#include "../../csrc/portable.h"

namespace fastbsn {

inline void run_emulated(const Op& op, unsigned grid, unsigned seed) {
    const bool found = dispatch<PORTABLE_BLOCKS>(op.block, [&]<int I>() {
        using Kernel = Portable<PORTABLE_BLOCKS[I]>;
        for (unsigned index = 0; index < grid; ++index)
            emulate::run(index, grid, Kernel::THREADS, Kernel::SHARED_BYTES, seed + index,
                         [&] { Kernel(op.params, emulate::block->shared.data()).run(); });
    });
    if (!found) emulate::fail("no kernel for a block of the plan");
}

}  // namespace fastbsn
