// The blocks for which tensor-core kernels are built: those of the U-Net with 48 channels, up to 3 image channels, depth >= 2.
#pragma once
#include <utility>

#include "block.h"

namespace fastbsn {

inline constexpr Block PORTABLE_BLOCKS[] = {
    {0, 0, 32, {48, 48, 0}, true, 64, 4},     // image -> enc0, enc1, pool
    {0, 48, 0, {48, 0, 0}, true, 64, 4},      // enc2 to enc5, pool
    {0, 48, 0, {48, 0, 0}, false, 64, 4},     // enc6
    {48, 48, 0, {96, 96, 0}, false, 64, 4},   // dec4
    {96, 48, 0, {96, 96, 0}, false, 64, 4},   // dec3 to dec1
    {96, 0, 32, {64, 32, 8}, false, 64, 4},   // dec0, out
    {48, 48, 0, {96, 96, 0}, false, 32, 4},   // the same three with less shared memory
    {96, 48, 0, {96, 96, 0}, false, 32, 4},
    {96, 0, 32, {64, 32, 8}, false, 32, 4},
};

inline constexpr Block HOPPER_BLOCKS[] = {
    {0, 0, 32, {48, 48, 0}, true, 128, 4},   {0, 48, 0, {48, 0, 0}, true, 128, 4},    {0, 48, 0, {48, 0, 0}, false, 128, 4},
    {48, 48, 0, {96, 96, 0}, false, 128, 2}, {96, 48, 0, {96, 96, 0}, false, 128, 2}, {96, 0, 32, {64, 32, 8}, false, 128, 2},
};

// Calls f.template operator()<index>() for the entry of `blocks` that equals b; false if there is none. An index, since a
// kernel's template arguments must be plain numbers.
template <const auto& blocks, class F>
bool dispatch(const Block& b, F f) {
    return [&]<std::size_t... I>(std::index_sequence<I...>) {
        return ((b == blocks[I] && (f.template operator()<int(I)>(), true)) || ...);
    }(std::make_index_sequence<sizeof(blocks) / sizeof(Block)>());
}

}  // namespace fastbsn
