#include "hopper.h"
#include "instances.h"
#include "kernels.h"

namespace fastbsn {

template <int I>
using Instance = Hopper<HOPPER_BLOCKS[I]>;

// Empty but for sm_90a; Network asks for it on no other GPU.
template <int I>
__global__ void __launch_bounds__(Instance<I>::THREADS, 1) hopper(const __grid_constant__ Block, const __grid_constant__ Params p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ __align__(128) uint8_t memory[];
    Instance<I>(p, memory).run();
#endif
}

Kernel hopper_kernel(const Block& block) {
    Kernel kernel{};
    dispatch<HOPPER_BLOCKS>(block, [&]<int I>() {
        kernel = {reinterpret_cast<const void*>(hopper<I>), Instance<I>::THREADS, Instance<I>::SHARED_BYTES};
    });
    return kernel;
}

}  // namespace fastbsn
