#include "kernels.h"
#include "mdc.h"

namespace fastbsn {

// Empty but for sm_90a; mdc_why_not refuses every other GPU.
template <bool HALF>
__global__ void __launch_bounds__(Mdc<HALF>::THREADS, 1) mdc_module(const __grid_constant__ mdc::Params p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ __align__(128) uint8_t memory[];
    Mdc<HALF>(p, memory).run();
#endif
}

Kernel mdc_kernel(bool half) {
    const void* kernel = half ? reinterpret_cast<const void*>(mdc_module<true>) : reinterpret_cast<const void*>(mdc_module<false>);
    return {kernel, Mdc<true>::THREADS, mdc::SHARED_BYTES};
}

}  // namespace fastbsn
