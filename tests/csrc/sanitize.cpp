// Random networks and sizes through the CPU executor and the emulated kernels; built with sanitizers by tests/csrc/test_host.py.
#include "emulated.h"

using namespace fastbsn;

int main(int argc, char** argv) {
    std::mt19937 random(argc > 1 ? atoi(argv[1]) : 0);
    const auto draw = [&](int low, int high) { return low + int(random() % unsigned(high - low + 1)); };
    int blocks = 0;
    for (int round = 0; round < 7; ++round) {
        const bool emulated = round == 0;
        const Config config = emulated ? Config{1, 48, 2} : Config{draw(1, 5), 6 * draw(1, 4), draw(1, 4)};
        const int batch = emulated ? 1 : draw(1, 2), h = emulated ? 3 : draw(1, 40), w = emulated ? 5 : draw(1, 40);
        const Plan plan(config, batch, h, w, emulated ? PORTABLE : REFERENCE, 101376, draw(1, 40));
        // Buffers of exactly the promised sizes, so that one step outside is seen.
        std::vector<uint8_t> arena(plan.arena_bytes), packed(plan.weight_bytes);
        std::vector<std::vector<float>> tensors;
        std::vector<Layer> layers;
        for (const Op& op : plan.ops)
            for (int stage = 0; stage < stages(op.block); ++stage) {
                const int inputs = stage ? op.n[stage - 1] : op.up + (op.skip ? op.skip : config.in_channels);
                for (int count : {op.n[stage] * inputs * 9, op.n[stage]}) {
                    std::vector<float>& values = tensors.emplace_back(count);
                    for (float& x : values) x = float(random() % 2001) / 1000 - 1;
                }
            }
        for (size_t i = 0; i < tensors.size(); i += 2) layers.push_back({tensors[i].data(), tensors[i + 1].data()});
        plan.pack(layers, packed.data());
        std::vector<float> image(size_t(batch) * config.in_channels * h * w, 0.5f), result(image.size());
        const auto describe = [&](std::vector<float>& t) {
            return Image{t.data(), FLOAT32, h, w, int64_t(config.in_channels) * h * w, int64_t(h) * w, w, 1, 1.f};
        };
        const std::vector<Op> ops = plan.bind(arena.data(), packed.data(), describe(image), describe(result));
        run_on_host(ops);
        for (const Op& op : ops)
            if (emulated) run_emulated(op, PORTABLE, 1, random());
        blocks += int(ops.size());
    }
    printf("%d blocks\n", blocks);
    return 0;
}
