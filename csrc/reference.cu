// The plain CUDA-core kernel: any U-Net, no tensor cores; the first thing to run on new hardware.
#include "kernels.h"
#include "reference.h"

namespace fastbsn {

constexpr int THREADS = 256;

struct Barrier {
    __device__ void operator()() const { __syncthreads(); }
};

static __global__ void __launch_bounds__(THREADS, 1) reference(const __grid_constant__ Block block, const __grid_constant__ Params p) {
    extern __shared__ uint16_t middle[];
    for (int64_t index = blockIdx.x; index < tiles(p); index += gridDim.x)
        run_tile(block, p, index, middle, threadIdx.x, THREADS, Barrier{});
}

Kernel reference_kernel(const Block& block) {
    return {reinterpret_cast<const void*>(reference), THREADS, int(shared_bytes(block, REFERENCE))};
}

}  // namespace fastbsn
