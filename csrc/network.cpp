#include "network.h"

namespace fastbsn {
namespace {

Kernel kernel_of(const Block& block, Path path) {
    return path == HOPPER ? hopper_kernel(block) : path == PORTABLE ? portable_kernel(block) : reference_kernel(block);
}

}  // namespace

Device describe_device(int index) {
    int count = 0;
    check(cudaGetDeviceCount(&count), "counting GPUs");
    if (index < 0 || index >= count) throw std::invalid_argument("GPU " + std::to_string(index) + "; there are " + std::to_string(count));
    const auto attribute = [&](cudaDeviceAttr name) {
        int value = 0;
        check(cudaDeviceGetAttribute(&value, name, index), "reading a GPU attribute");
        return value;
    };
    cudaDeviceProp properties;
    check(cudaGetDeviceProperties(&properties, index), "reading GPU properties");
    return {index, attribute(cudaDevAttrComputeCapabilityMajor), attribute(cudaDevAttrComputeCapabilityMinor), attribute(cudaDevAttrMultiProcessorCount),
            attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin), properties.name};
}

std::string why_not(Config config, Path path, int index) {
    const Device device = describe_device(index);
    const std::string gpu = device.name + " (compute capability " + std::to_string(device.major) + "." + std::to_string(device.minor) + ")";
    if (device.major < 8) return gpu + "; the kernels need 8.0 or later";
    if (path == HOPPER && (device.major != 9 || std::string("," FASTBSN_ARCHS ",").find(",90a,") == std::string::npos))
        return gpu + "; the Hopper kernels need 9.0 and an extension built for sm_90a (it was built for sm_" FASTBSN_ARCHS ")";
    const OnDevice on(index);
    cudaFuncAttributes attributes;
    const cudaError_t status = cudaFuncGetAttributes(&attributes, reference_kernel(Block{}).function);
    if (status == cudaErrorNoKernelImageForDevice) {
        cudaGetLastError();
        return gpu + "; the extension was built for sm_" FASTBSN_ARCHS " only, set FASTBSN_ARCHS and install again";
    }
    check(status, "loading the kernels");
    const std::string reason = Plan::why_not(config, path, device.shared);
    return reason.empty() ? "" : gpu + ": " + reason;
}

Network::Network(Config config, int batch, int h, int w, Path path, int index)
    : device(describe_device(index)), plan(config, batch, h, w, path, device.shared, device.processors) {
    const OnDevice on(index);
    for (const Op& op : plan.ops) {
        const Kernel kernel = kernel_of(op.block, path);
        if (!kernel.function) throw std::logic_error("no kernel for a block of the plan");
        // All there is: the reference kernel serves blocks and networks of any size, and the last one set would limit the others.
        check(cudaFuncSetAttribute(kernel.function, cudaFuncAttributeMaxDynamicSharedMemorySize, int(device.shared)), "allowing shared memory");
        int resident = 0;
        check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel.function, kernel.threads, kernel.shared_bytes), "measuring occupancy");
        launches.push_back({kernel, int(std::min<int64_t>(tiles(op.params), int64_t(std::max(resident, 1)) * device.processors))});
    }
}

void Network::launch(uint8_t* arena, const uint8_t* weights, Image image, Image result, cudaStream_t stream) const {
    if (reinterpret_cast<uintptr_t>(arena) % 16 || reinterpret_cast<uintptr_t>(weights) % 16)
        throw std::invalid_argument("arena and weights must be aligned to 16 bytes");
    const OnDevice on(device.index);
    std::vector<Op> ops = plan.bind(arena, weights, image, result);
    for (size_t i = 0; i < ops.size(); ++i) {
        void* arguments[] = {&ops[i].block, &ops[i].params};
        const Launch& l = launches[i];
        check(cudaLaunchKernel(l.kernel.function, dim3(l.grid), dim3(l.kernel.threads), arguments, l.kernel.shared_bytes, stream), "launching a kernel");
    }
}

}  // namespace fastbsn
