#include <cmath>

#include "quantize/codes.h"
#include "quantize/reference/error.h"
#include "quantize/reference/reference.h"

namespace quantport::quantize::reference {
namespace {

// ModelOpt's table for NVFP4 has no negative zero; that for MXFP4 has one.
float DecodeE2m1(int code) { return code == 8 ? 0.0f : kE2m1Values[static_cast<size_t>(code)]; }

}  // namespace

uint8_t EncodeBlockScale(float amax, float divisor) {
  const float scale = amax / divisor;
  if (std::isnan(scale)) return kE4m3Nan;
  if (scale == 0) return kE4m3One;
  return EncodeE4m3(std::fmin(std::fmax(scale, 0x1p-9f), kE4m3Max));
}

void Nvfp4(Row row, float global_scale, size_t block, uint8_t* scales, uint8_t* codes) {
  const float divisor = kE2m1Max * global_scale;
  for (size_t i = 0; i < row.size / block; ++i) {
    float amax;
    GroupAmax(row.Slice(i * block, block), block, &amax);
    scales[i] = EncodeBlockScale(amax, divisor);
  }
  Nvfp4WithScales(row, global_scale, block, scales, codes);
}

void Nvfp4WithScales(Row row, float global_scale, size_t block, const uint8_t* scales, uint8_t* codes) {
  for (size_t i = 0; i < row.size; i += 2) {
    const float divisor = DecodeE4m3(scales[i / block]) * global_scale;
    const uint8_t low = EncodeE2m1ToEven(LoadElement(row, i) / divisor);
    const uint8_t high = EncodeE2m1ToEven(LoadElement(row, i + 1) / divisor);
    codes[i / 2] = static_cast<uint8_t>(low | high << 4);
  }
}

void FromNvfp4(const uint8_t* codes, size_t size, float global_scale, size_t block, const uint8_t* scales,
               Output output) {
  for (size_t i = 0; i < size; ++i) {
    const float scale = DecodeE4m3(scales[i / block]) * global_scale;
    output.Store(i, DecodeE2m1(codes[i / 2] >> (4 * (i % 2)) & 15) * scale);
  }
}

ErrorSums Nvfp4Error(Row row, const uint8_t* codes, float global_scale, size_t block, const uint8_t* scales) {
  ErrorParts parts;
  AddErrors(
      row, block, kE2m1Max, [&](size_t i) { return DecodeE2m1(codes[i / 2] >> (4 * (i % 2)) & 15); },
      [&](size_t g) { return DecodeE4m3(scales[g]) * global_scale; }, &parts);
  return parts.Sum(row.size);
}

}  // namespace quantport::quantize::reference
