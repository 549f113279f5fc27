// The U-Net as a list of blocks: which tensors they read, where those lie in one arena, how their weights are packed.
#pragma once
#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "tensor.h"

namespace fastbsn {

struct Config {  // of fastbsn.nets.UNet
    int in_channels, channels, depth;
};

enum Path { REFERENCE, PORTABLE, HOPPER };  // plain CUDA cores (and the CPU); ldmatrix + mma.sync; wgmma

struct Layer {  // fp32, [out][in][3][3] and [out]
    const float* weight;
    const float* bias;
};

struct Buffer {
    int channels, h, w;
    int64_t offset;  // bytes into the arena
};

struct Op {
    Block block;
    int up, skip, n[3];       // channels before padding
    int coarse, fine, out;    // buffers, -1 if none
    int level;
    int64_t weights, bias;    // bytes into the packed weights
    Params params;            // pointers are filled in by bind()
};

constexpr int pad(int x, int multiple) { return (x + multiple - 1) / multiple * multiple; }

struct Plan {
    Config config;
    int batch, h, w, padded_h, padded_w;
    Path path;
    std::vector<Buffer> buffers;
    std::vector<Op> ops;
    int64_t arena_bytes = 0, weight_bytes = 0;

    // `processors` (of the GPU) sets how finely images are cut into tiles; `shared` is its shared memory for a block in bytes.
    Plan(Config config, int batch, int h, int w, Path path, int64_t shared, int processors);
    // Why a path cannot run this network with this much shared memory per block; empty if it can.
    static std::string why_not(Config config, Path path, int64_t shared);

    int layers() const { return 3 * config.depth + 3; }
    // Packs fp32 layers, in the order of the network, into `destination` (weight_bytes): bf16 weights, fp32 biases.
    void pack(const std::vector<Layer>& layers, uint8_t* destination) const;
    // The ops with every pointer set.
    std::vector<Op> bind(uint8_t* arena, const uint8_t* weights, Image image, Image result) const;
};

int64_t shared_bytes(const Block& block, Path path);

}  // namespace fastbsn
