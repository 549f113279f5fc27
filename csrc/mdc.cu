#include "mdc_module.h"

namespace fastbsn {

// Empty but for sm_90a; mdc_why_not refuses every other GPU.
template <bool HALF>
__global__ void __launch_bounds__(Mdc<HALF>::THREADS, 1) mdc_module(const __grid_constant__ mdc::Params p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ __align__(128) uint8_t memory[];
    Mdc<HALF>(p, memory).run();
#endif
}

std::string mdc_why_not(int index) {
    const Device device = describe_device(index);
    if (device.major == 9 && std::string("," FASTBSN_ARCHS ",").find(",90a,") != std::string::npos && device.shared >= mdc::SHARED_BYTES) return "";
    return device.name + " (compute capability " + std::to_string(device.major) + "." + std::to_string(device.minor) +
           "); the CUDA kernel of the module needs 9.0 and an extension built for sm_90a (it was built for sm_" FASTBSN_ARCHS ")";
}

void mdc_launch(bool half, const mdc::Params& p, int index, cudaStream_t stream) {
    const auto aligned = [](const void* address) { return reinterpret_cast<uintptr_t>(address) % 16 == 0; };
    if (!aligned(p.x) || !aligned(p.y) || !aligned(p.weights)) throw std::invalid_argument("x, y and weights must be aligned to 16 bytes");
    if (p.images < 1 || p.h < 1 || p.w < 1 || p.rows < p.h || p.pitch < p.w)
        throw std::invalid_argument("images, h or w below 1, or rows or pitch below those");
    if (mdc::tiles(p) >= int64_t(1) << 31) throw std::invalid_argument("2^31 tiles or more; run the image in parts");
    const OnDevice on(index);
    const void* kernel = half ? reinterpret_cast<const void*>(mdc_module<true>) : reinterpret_cast<const void*>(mdc_module<false>);
    int processors = 0;
    check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, index), "reading a GPU attribute");
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, mdc::SHARED_BYTES), "allowing shared memory");
    void* arguments[] = {const_cast<mdc::Params*>(&p)};
    const dim3 grid(unsigned(std::min<int64_t>(mdc::tiles(p), processors)));
    check(cudaLaunchKernel(kernel, grid, dim3(Mdc<false>::THREADS), arguments, mdc::SHARED_BYTES, stream), "launching a kernel");
}

}  // namespace fastbsn
