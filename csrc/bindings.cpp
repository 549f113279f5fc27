// fastbsn._C: raw pointers and streams as integers, no torch in sight.
#include <pybind11/pybind11.h>

#include "cuda_check.h"

namespace py = pybind11;
using namespace fastbsn;

static int device_count() {
    int count = 0;
    check(cudaGetDeviceCount(&count), "counting GPUs");
    return count;
}

PYBIND11_MODULE(_C, m) {
    m.doc() = "CUDA kernels of the U-Net student. Pointers and streams are integers; errors of the CUDA runtime raise CudaError.";
    py::register_exception<CudaError>(m, "CudaError", PyExc_RuntimeError);
    m.def("device_count", &device_count, "Number of GPUs. Raises CudaError without a driver.");
}
