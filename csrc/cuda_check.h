// One place that turns a CUDA status into a C++ exception with the runtime's own sentence.
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

}  // namespace fastbsn
