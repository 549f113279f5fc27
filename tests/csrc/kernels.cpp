// The tensor-core kernels on an emulated GPU against the CPU executor, block by block; for tests/csrc/test_kernels.py.
#include "emulated.h"

using namespace fastbsn;

// Largest difference between the two executions of one block, on the same inputs, relative to the largest value; NaN if either has one.
template <class T, class F>
static float difference(const T* a, const T* b, int64_t count, F value) {
    float most = 0, largest = 0;
    for (int64_t i = 0; i < count; ++i) {
        const float x = value(a[i]), d = std::fabs(x - value(b[i]));
        if (std::isnan(d)) return NAN;
        most = std::max(most, d), largest = std::max(largest, std::fabs(x));
    }
    return most / std::max(largest, 1e-6f);
}

// The plan's blocks in order, each on the CPU executor's inputs, and what they did. Returns their number, or -1 with a message.
extern "C" int compare_paths(int in_channels, int channels, int depth, int batch, int h, int w, int path, int64_t shared, int processors, int grid,
                             unsigned seed, const float** layers, float* image, float* result, float* differences, emulate::Counts* counts, char* message, int room) {
    try {
        const Plan plan({in_channels, channels, depth}, batch, h, w, Path(path), shared, processors);
        std::vector<uint8_t> expected(plan.arena_bytes, 0xff), weights(plan.weight_bytes);
        std::vector<Layer> pairs;
        for (int i = 0; i < plan.layers(); ++i) pairs.push_back({layers[2 * i], layers[2 * i + 1]});
        plan.pack(pairs, weights.data());
        const int64_t pixels = int64_t(batch) * in_channels * h * w;
        std::vector<float> other(pixels, NAN);
        const auto describe = [&](void* data) { return Image{data, FLOAT32, h, w, int64_t(in_channels) * h * w, int64_t(h) * w, w, 1, 1.f}; };
        const std::vector<Op> host = plan.bind(expected.data(), weights.data(), describe(image), describe(result));
        for (size_t i = 0; i < host.size(); ++i) {
            run_on_host({host[i]});
            std::vector<uint8_t> got = expected;
            const int out = host[i].out;
            const Buffer none{}, &buffer = out < 0 ? none : plan.buffers[out];
            const int64_t count = int64_t(batch) * buffer.channels * buffer.h * buffer.w;
            if (out >= 0) std::fill_n(got.begin() + buffer.offset, 2 * count, 0xff);
            emulate::counts = {};
            run_emulated(plan.bind(got.data(), weights.data(), describe(image), describe(other.data()))[i], plan.path, grid, seed);
            counts[i] = emulate::counts;
            differences[i] = out < 0 ? difference(result, other.data(), pixels, [](float x) { return x; })
                                     : difference(reinterpret_cast<uint16_t*>(&expected[buffer.offset]), reinterpret_cast<uint16_t*>(&got[buffer.offset]),
                                                  count, from_bf16);
        }
        return int(host.size());
    } catch (const std::exception& error) {
        snprintf(message, room, "%s", error.what());
        return -1;
    }
}
