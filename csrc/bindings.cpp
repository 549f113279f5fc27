// fastbsn._C: raw pointers and streams as integers, no torch in sight.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>

#include "mdc_module.h"
#include "network.h"

namespace py = pybind11;
using namespace fastbsn;

namespace {

Path path_of(const std::string& name) {
    if (name == "reference") return REFERENCE;
    if (name == "portable") return PORTABLE;
    if (name == "hopper") return HOPPER;
    throw std::invalid_argument("path '" + name + "'; expected 'reference', 'portable' or 'hopper'");
}

template <class T>
T* pointer(uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

// (address, dtype name, (h, w), (stride n, c, y, x) in elements, scale)
using ImageTuple = std::tuple<uintptr_t, std::string, std::array<int, 2>, std::array<int64_t, 4>, float>;

Image image_of(const ImageTuple& t) {
    const auto& [address, dtype, size, stride, scale] = t;
    const std::array<const char*, 4> names{"uint8", "uint16", "float16", "float32"};
    const auto found = std::find(names.begin(), names.end(), dtype);
    if (found == names.end()) throw std::invalid_argument("image of dtype " + dtype + "; expected uint8, uint16, float16 or float32");
    return {pointer<void>(address), int(found - names.begin()), size[0], size[1], stride[0], stride[1], stride[2], stride[3], scale};
}

int device_count() {
    int count = 0;
    check(cudaGetDeviceCount(&count), "counting GPUs");
    return count;
}

void pack(const Plan& plan, const std::vector<std::array<uintptr_t, 2>>& layers, uintptr_t destination) {
    std::vector<Layer> pairs;
    for (const auto& [weight, bias] : layers) pairs.push_back({pointer<float>(weight), pointer<float>(bias)});
    plan.pack(pairs, pointer<uint8_t>(destination));
}

}  // namespace

PYBIND11_MODULE(_C, m) {
    m.doc() = "CUDA kernels of the U-Net student and of the D-BSN teacher's module. Pointers and streams are integers; errors of the CUDA runtime raise CudaError.";
    py::register_exception<CudaError>(m, "CudaError", PyExc_RuntimeError);
    m.attr("archs") = FASTBSN_ARCHS;
    m.def("device_count", &device_count, "Number of GPUs. Raises CudaError without a driver.");
    m.def(
        "device",
        [](int index) {
            const Device d = describe_device(index);
            return py::dict(py::arg("name") = d.name, py::arg("capability") = py::make_tuple(d.major, d.minor), py::arg("processors") = d.processors,
                            py::arg("shared_bytes") = d.shared);
        },
        py::arg("index"), "Name, compute capability, multiprocessors and shared memory per block of a GPU.");
    m.def(
        "why_not",
        [](int in_channels, int channels, int depth, const std::string& path, int device) {
            return why_not({in_channels, channels, depth}, path_of(path), device);
        },
        py::arg("in_channels"), py::arg("channels"), py::arg("depth"), py::arg("path"), py::arg("device"),
        "Why a path ('reference', 'portable' or 'hopper') cannot run this U-Net on this GPU; an empty string if it can.");

    m.def("mdc_why_not", &mdc_why_not, py::arg("device"), "Why a GPU cannot run the teacher's module; an empty string if it can.");
    m.def(
        "mdc_launch",
        [](bool half, uintptr_t x, uintptr_t y, uintptr_t inside, uintptr_t weights, uintptr_t bias, int images, int h, int w, int rows, int pitch,
           int device, uintptr_t stream) {
            const mdc::Params p{pointer<uint16_t>(x), pointer<uint16_t>(y), pointer<uint8_t>(inside), pointer<uint16_t>(weights), pointer<float>(bias),
                                images, h, w, rows, pitch};
            py::gil_scoped_release release;
            mdc_launch(half, p, device, pointer<CUstream_st>(stream));
        },
        py::arg("half"), py::arg("x"), py::arg("y"), py::arg("inside"), py::arg("weights"), py::arg("bias"), py::arg("images"), py::arg("h"), py::arg("w"),
        py::arg("rows"), py::arg("pitch"), py::arg("device"), py::arg("stream"),
        R"(Enqueues the module of the D-BSN "paper", 96 channels, forward, on a stream; can be captured into a CUDA graph.

Args:
    half: float16, else bfloat16.
    x, y: device addresses [positions, 96], aligned to 16 bytes, which must not overlap.
    inside: [positions] uint8. weights: [42, 12, 96, 8], aligned to 16 bytes. bias: [8, 96] float32.
    images, h, w: of the images, or phase images; from one to the next are rows * pitch positions.

Raises:
    CudaError: the launch failed. ValueError: a misaligned address or an impossible size.)");

    py::class_<Network>(m, "Network", R"(A U-Net planned for one image size on one GPU.

Activations are bf16 in planes of eight channels, [N][C/8][H][W][8], in an arena that the caller owns; sums, biases and the
residual are fp32. Holds no device memory and is not changed by `launch`: launches on several streams need an arena each.)")
        .def(py::init([](int in_channels, int channels, int depth, int batch, int h, int w, const std::string& path, int device) {
                 return Network({in_channels, channels, depth}, batch, h, w, path_of(path), device);
             }),
             py::arg("in_channels"), py::arg("channels"), py::arg("depth"), py::arg("batch"), py::arg("h"), py::arg("w"), py::arg("path"), py::arg("device"))
        .def_property_readonly("arena_bytes", [](const Network& n) { return n.plan.arena_bytes; }, "Device memory for activations, any contents.")
        .def_property_readonly("weight_bytes", [](const Network& n) { return n.plan.weight_bytes; }, "Size of the packed weights.")
        .def(
            "pack", [](const Network& n, const std::vector<std::array<uintptr_t, 2>>& layers, uintptr_t to) { pack(n.plan, layers, to); },
            py::arg("layers"), py::arg("destination"),
            R"(Packs contiguous fp32 layers into host memory of weight_bytes. The result depends on the network only, not on size or path.

Args:
    layers: (weight, bias) addresses, [out, in, 3, 3] and [out], in the order enc0.., dec{depth-1}a, dec{depth-1}b, .., dec0b, out.
    destination: host address.)")
        .def(
            "launch",
            [](const Network& n, uintptr_t arena, uintptr_t weights, const ImageTuple& image, const ImageTuple& result, uintptr_t stream) {
                const Image from = image_of(image), to = image_of(result);
                py::gil_scoped_release release;
                n.launch(pointer<uint8_t>(arena), pointer<uint8_t>(weights), from, to, pointer<CUstream_st>(stream));
            },
            py::arg("arena"), py::arg("weights"), py::arg("image"), py::arg("result"), py::arg("stream"),
            R"(Enqueues the whole network on a stream; can be captured into a CUDA graph.

Args:
    arena, weights: device addresses, aligned to 16 bytes.
    image, result: (device address, 'uint8' | 'uint16' | 'float16' | 'float32', (h, w), strides (n, c, y, x) in elements, scale).
        value = scale * element; integer results are rounded and clamped. They must not overlap.
    stream: cudaStream_t.

Raises:
    CudaError: the launch failed. ValueError: a misaligned address or an unknown dtype.)");
}
