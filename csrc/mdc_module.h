// The kernel of the teacher's module on one GPU.
#pragma once
#include <cuda_runtime.h>

#include <string>

#include "mdc_tile.h"

namespace fastbsn {

// Why this GPU cannot run it; empty if it can. Raises CudaError without a driver.
std::string mdc_why_not(int device);

// Enqueues one module. Raises std::invalid_argument for addresses that are not aligned to 16 bytes or sizes below 1.
void mdc_launch(bool half, const mdc::Params& p, int device, cudaStream_t stream);

}  // namespace fastbsn
