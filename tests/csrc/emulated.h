// The tensor-core kernels on the emulated GPU.
#pragma once
#include "emulate_hopper.h"
//
#include "../../csrc/hopper.h"
#include "../../csrc/host.h"
#include "../../csrc/instances.h"
#include "../../csrc/portable.h"

namespace fastbsn {

template <class Kernel>
void run_kernel(const Op& op, unsigned grid, unsigned seed) {
    for (unsigned index = 0; index < grid; ++index) {
        emulate::reset_hopper();
        emulate::run(index, grid, Kernel::THREADS, Kernel::SHARED_BYTES, 16 * Kernel::AT.weights, seed + index, [&] { Kernel(op.params, emulate::block->shared.data()).run(); });
    }
}

inline void run_emulated(const Op& op, Path path, unsigned grid, unsigned seed) {
    const bool found = path == HOPPER
                           ? dispatch<HOPPER_BLOCKS>(op.block, [&]<int I>() { run_kernel<Hopper<HOPPER_BLOCKS[I]>>(op, grid, seed); })
                           : dispatch<PORTABLE_BLOCKS>(op.block, [&]<int I>() { run_kernel<Portable<PORTABLE_BLOCKS[I]>>(op, grid, seed); });
    if (!found) emulate::fail("no kernel for a block of the plan");
}

}  // namespace fastbsn
