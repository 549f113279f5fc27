// One place that turns a CUDA status into a C++ exception with the runtime's own sentence, and one that selects a GPU.
#pragma once
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace fastbsn {

struct CudaError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

inline void check(cudaError_t status, const char* what) {
    if (status == cudaSuccess) return;
    cudaGetLastError();  // an error that is not sticky must not be reported twice
    throw CudaError(std::string(what) + ": " + cudaGetErrorString(status) + " (CUDA error " + std::to_string(status) + ")");
}

class OnDevice {  // makes a device current, and puts the caller's back
public:
    explicit OnDevice(int device) {
        check(cudaGetDevice(&before), "reading the current GPU");
        check(cudaSetDevice(device), "selecting a GPU");
    }
    ~OnDevice() { cudaSetDevice(before); }

private:
    int before = 0;
};

}  // namespace fastbsn
