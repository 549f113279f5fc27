// What a block reads and writes: bf16 activations, the caller's image in its own dtype and strides, and the parameters.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>

#include "block.h"

#ifdef __CUDACC__
#include <cuda_fp16.h>
#endif

namespace fastbsn {

#ifdef __CUDACC__
#define FASTBSN_HD __host__ __device__ inline
#else
#define FASTBSN_HD inline
#endif

constexpr float SLOPE = 0.1f;
FASTBSN_HD float leaky(float x) { return x > 0 ? x : SLOPE * x; }

FASTBSN_HD float from_bf16(uint16_t bits) {
    const uint32_t wide = uint32_t(bits) << 16;
    float x;
    memcpy(&x, &wide, 4);
    return x;
}
FASTBSN_HD uint16_t to_bf16(float x) {  // to nearest even; a NaN stays one
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return uint16_t(bits >> 16 | 0x40);
    return uint16_t((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

struct Tensor {  // [N][C/8][H][W][8] bf16
    uint16_t* data;
    int channels, h, w;
};

enum Dtype { UINT8, UINT16, FLOAT16, FLOAT32 };

struct Image {  // any strides, in elements; value = scale * element
    void* data;
    int dtype, h, w;
    int64_t stride_n, stride_c, stride_y, stride_x;
    float scale;
};

struct Params {
    Tensor coarse, skip, out;
    Image image, result;
    const uint16_t* weights;  // Block's segments
    const float* bias;        // all stages
    int in_channels, batch;
    int h, w;              // of this resolution; at full resolution a multiple of 2**depth, the image mirrored
    int steps;             // of `rows` rows in a tile, fewer in the last one down
    int across, down;      // tiles
};

struct Tile {
    int n, x, y, xs, ys, steps;  // image, first output pixel, origin, steps that compute an output
};

FASTBSN_FN int64_t tiles(const Params& p) { return int64_t(p.batch) * p.across * p.down; }
FASTBSN_FN Tile tile(const Block& b, const Params& p, int64_t index) {
    const int n = int(index / (int64_t(p.across) * p.down)), rest = int(index % (int64_t(p.across) * p.down));
    const int x = first_output(b, rest % p.across, valid_columns(b)), y = first_output(b, rest / p.across, valid_rows(b, p.steps));
    return {n, x, y, origin(b, x), origin(b, y), steps_of(b, y, p.h, p.steps)};
}
// Whether a pixel that the last stage computed belongs to this tile's output.
FASTBSN_FN bool is_output(const Block& b, const Params& p, const Tile& t, int y, int x) {
    return y >= t.y && y < t.y + valid_rows(b, p.steps) && y >= 0 && y < p.h && x >= t.x && x < t.x + valid_columns(b) && x >= 0 && x < p.w;
}
FASTBSN_FN bool inside(const Params& p, int y, int x) { return y >= 0 && y < p.h && x >= 0 && x < p.w; }

#ifdef __CUDACC__
FASTBSN_HD float from_half(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
FASTBSN_HD uint16_t to_half(float x) { return __half_as_ushort(__float2half_rn(x)); }
#else
inline float from_half(uint16_t bits) {
    const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    const float size = exponent == 31 ? (mantissa ? NAN : INFINITY) : std::ldexp((exponent ? 1024.f : 0) + mantissa, std::max(exponent, 1) - 25);
    return bits >> 15 ? -size : size;
}
inline uint16_t to_half(float x) {  // to nearest even
    const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
    const float size = std::fabs(x);
    if (std::isnan(x)) return sign | 0x7e00;
    if (size >= 65520.f) return sign | 0x7c00;
    if (size < 0x1p-14f) return sign | uint16_t(std::nearbyint(size * 0x1p24f));
    int exponent;
    const float mantissa = std::nearbyint(std::frexp(size, &exponent) * 2048.f);  // carries into the exponent by itself
    return sign | uint16_t(((exponent + 13) << 10) + int(mantissa));
}
#endif

// The pixel among n that stands at i >= 0 when they are mirrored at the last one, which is not repeated; one pixel is repeated.
FASTBSN_HD int mirrored(int i, int n) {
    if (i < n) return i;
    const int period = n > 1 ? 2 * (n - 1) : 1;
    const int j = i % period;
    return j < n ? j : period - j;
}

// Calls f.template operator()<dtype>(), so that a loop inside need not ask for each element.
template <class F>
FASTBSN_HD void with_dtype(int dtype, F f) {
    switch (dtype) {
        case UINT8: return f.template operator()<UINT8>();
        case UINT16: return f.template operator()<UINT16>();
        case FLOAT16: return f.template operator()<FLOAT16>();
        default: return f.template operator()<FLOAT32>();
    }
}

FASTBSN_HD int64_t element_at(const Image& image, int n, int c, int y, int x) {
    return n * image.stride_n + c * image.stride_c + int64_t(y) * image.stride_y + int64_t(x) * image.stride_x;
}
template <int DTYPE>
FASTBSN_HD float read_element(const Image& image, int64_t i) {
    if constexpr (DTYPE == UINT8) return image.scale * static_cast<const uint8_t*>(image.data)[i];
    else if constexpr (DTYPE == UINT16) return image.scale * static_cast<const uint16_t*>(image.data)[i];
    else if constexpr (DTYPE == FLOAT16) return image.scale * from_half(static_cast<const uint16_t*>(image.data)[i]);
    else return image.scale * static_cast<const float*>(image.data)[i];
}

// Pixel (y, x) of the padded image: mirrored at the bottom and right, outside the padded extent it is 0.
template <int DTYPE>
FASTBSN_HD float read_padded(const Params& p, int n, int c, int y, int x) {
    if (!inside(p, y, x)) return 0;
    return read_element<DTYPE>(p.image, element_at(p.image, n, c, mirrored(y, p.image.h), mirrored(x, p.image.w)));
}
FASTBSN_HD float read_image(const Params& p, int n, int c, int y, int x) {
    float value = 0;
    with_dtype(p.image.dtype, [&]<int DTYPE>() { value = read_padded<DTYPE>(p, n, c, y, x); });
    return value;
}

FASTBSN_HD float clamp_round(float x, float top) {  // a NaN becomes 0
    return nearbyintf(fminf(fmaxf(x, 0), top));
}
template <int DTYPE>
FASTBSN_HD void write_element(const Image& image, int64_t i, float value) {
    const float element = value / image.scale;
    if constexpr (DTYPE == UINT8) static_cast<uint8_t*>(image.data)[i] = uint8_t(clamp_round(element, 255));
    else if constexpr (DTYPE == UINT16) static_cast<uint16_t*>(image.data)[i] = uint16_t(clamp_round(element, 65535));
    else if constexpr (DTYPE == FLOAT16) static_cast<uint16_t*>(image.data)[i] = to_half(element);
    else static_cast<float*>(image.data)[i] = element;
}
FASTBSN_HD void write_result(const Params& p, int n, int c, int y, int x, float value) {
    with_dtype(p.result.dtype, [&]<int DTYPE>() { write_element<DTYPE>(p.result, element_at(p.result, n, c, y, x), value); });
}

// im2col row k of the image at (y, x): tap k / in_channels, channel k % in_channels.
FASTBSN_HD float column(const Params& p, int n, int k, int y, int x) {
    const int tap = k / p.in_channels;
    return tap < 9 ? read_image(p, n, k % p.in_channels, y + tap / 3 - 1, x + tap % 3 - 1) : 0;
}

}  // namespace fastbsn
