// The CPU executor behind a C interface, for tests/csrc/test_host.py.
#include "../../csrc/host.h"

using namespace fastbsn;

// Layers are pairs of fp32 pointers (weight, bias). The image and the result are contiguous [N, C, H, W]. Returns 0, or -1 with a message.
extern "C" int run_network(int in_channels, int channels, int depth, int batch, int h, int w, int64_t shared, int processors, const float** layers,
                           void* image, int image_dtype, void* result, int result_dtype, char* message, int room) {
    try {
        const Plan plan({in_channels, channels, depth}, batch, h, w, REFERENCE, shared, processors);
        std::vector<uint8_t> arena(plan.arena_bytes, 0xff), weights(plan.weight_bytes);
        std::vector<Layer> pairs;
        for (int i = 0; i < plan.layers(); ++i) pairs.push_back({layers[2 * i], layers[2 * i + 1]});
        plan.pack(pairs, weights.data());
        const auto describe = [&](void* data, int dtype) {
            const float scale = dtype == UINT8 ? 1 / 255.f : dtype == UINT16 ? 1 / 65535.f : 1.f;
            return Image{data, dtype, h, w, int64_t(in_channels) * h * w, int64_t(h) * w, w, 1, scale};
        };
        run_on_host(plan.bind(arena.data(), weights.data(), describe(image, image_dtype), describe(result, result_dtype)));
        return 0;
    } catch (const std::exception& error) {
        snprintf(message, room, "%s", error.what());
        return -1;
    }
}

// The blocks of a plan, ten numbers each, for a comparison with the topology in Python. Returns how many there are.
extern "C" int describe_plan(int in_channels, int channels, int depth, int* numbers) {
    const Plan plan({in_channels, channels, depth}, 1, 1, 1, REFERENCE, 1 << 24, 1);
    for (const Op& op : plan.ops)
        for (int number : {op.level, op.up, op.skip, op.n[0], op.n[1], op.n[2], int(op.block.pool), op.coarse, op.fine, op.out}) *numbers++ = number;
    return int(plan.ops.size());
}
