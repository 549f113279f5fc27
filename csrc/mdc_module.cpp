#include "mdc_module.h"

#include "network.h"

namespace fastbsn {

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
    const Kernel kernel = mdc_kernel(half);
    int processors = 0;
    check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, index), "reading a GPU attribute");
    check(cudaFuncSetAttribute(kernel.function, cudaFuncAttributeMaxDynamicSharedMemorySize, kernel.shared_bytes), "allowing shared memory");
    void* arguments[] = {const_cast<mdc::Params*>(&p)};
    const dim3 grid(unsigned(std::min<int64_t>(mdc::tiles(p), processors)));
    check(cudaLaunchKernel(kernel.function, grid, dim3(kernel.threads), arguments, kernel.shared_bytes, stream), "launching a kernel");
}

}  // namespace fastbsn
