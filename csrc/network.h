// A plan on one GPU: kernels chosen and configured, ready to be launched on any stream or captured into a graph.
#pragma once
#include "cuda_check.h"
#include "kernels.h"

namespace fastbsn {

struct Device {
    int index, major, minor, processors;
    int64_t shared;  // bytes for one block
    std::string name;
};

Device describe_device(int index);

// Why this GPU cannot run this path of this network; empty if it can. Raises CudaError without a driver.
std::string why_not(Config config, Path path, int device);

class Network {
public:
    Network(Config config, int batch, int h, int w, Path path, int device);
    // Enqueues every kernel. Addresses must be 16-byte aligned device memory of arena_bytes and weight_bytes.
    void launch(uint8_t* arena, const uint8_t* weights, Image image, Image result, cudaStream_t stream) const;

    const Device device;
    const Plan plan;

private:
    struct Launch {
        Kernel kernel;
        int grid;
    };
    std::vector<Launch> launches;
};

}  // namespace fastbsn
