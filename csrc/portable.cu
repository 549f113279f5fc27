#include "instances.h"
#include "kernels.h"
#include "portable.h"

namespace fastbsn {

template <int I>
using Instance = Portable<PORTABLE_BLOCKS[I]>;

template <int I>
__global__ void __launch_bounds__(Instance<I>::THREADS, Instance<I>::RESIDENT)
    portable(const __grid_constant__ Block, const __grid_constant__ Params p) {
    extern __shared__ __align__(128) uint8_t memory[];
    Instance<I>(p, memory).run();
}

Kernel portable_kernel(const Block& block) {
    Kernel kernel{};
    dispatch<PORTABLE_BLOCKS>(block, [&]<int I>() {
        kernel = {reinterpret_cast<const void*>(portable<I>), Instance<I>::THREADS, Instance<I>::SHARED_BYTES};
    });
    return kernel;
}

}  // namespace fastbsn
