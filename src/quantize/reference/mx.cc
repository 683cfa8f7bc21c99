#include <cmath>

#include "quantize/codes.h"
#include "quantize/reference/error.h"
#include "quantize/reference/reference.h"

namespace quantport::quantize::reference {
namespace {

constexpr size_t kBlock = 32;

float BlockAmax(Row row, size_t block) {
  float amax;
  GroupAmax(row.Slice(block * kBlock, kBlock), kBlock, &amax);
  return amax;
}

}  // namespace

void Mxfp8(Row row, uint8_t* scales, uint8_t* codes) {
  for (size_t block = 0; block < row.size / kBlock; ++block) {
    scales[block] = EncodeE8m0(BlockAmax(row, block), kE4m3Max);
    const float factor = std::ldexp(1.0f, 127 - scales[block]);
    for (size_t i = block * kBlock; i < (block + 1) * kBlock; ++i) {
      const float scaled = LoadElement(row, i) * factor;
      // Not fmin and fmax, which would turn NaN into a bound.
      codes[i] = EncodeE4m3(scaled > kE4m3Max ? kE4m3Max : scaled < -kE4m3Max ? -kE4m3Max : scaled);
    }
  }
}

void Mxfp4(Row row, uint8_t* scales, uint8_t* codes) {
  for (size_t block = 0; block < row.size / kBlock; ++block) {
    const float amax = BlockAmax(row, block);
    // Infinity would make the scale infinite and every quotient 0 or NaN, and ModelOpt on a CPU stores 0 for it.
    const bool finite = std::isfinite(amax);
    scales[block] = finite ? EncodeE8m0(amax, kE2m1Max) : 0;
    const float factor = finite ? std::ldexp(1.0f, 127 - scales[block]) : 0.0f;
    for (size_t i = block * kBlock; i < (block + 1) * kBlock; i += 2) {
      const uint8_t low = EncodeE2m1ToZero(LoadElement(row, i) * factor);
      const uint8_t high = EncodeE2m1ToZero(LoadElement(row, i + 1) * factor);
      codes[i / 2] = static_cast<uint8_t>(low | high << 4);
    }
  }
}

void FromMxfp8(const uint8_t* codes, size_t size, const uint8_t* scales, Output output) {
  for (size_t i = 0; i < size; ++i) output.Store(i, DecodeE4m3(codes[i]) * DecodeE8m0(scales[i / kBlock]));
}

void FromMxfp4(const uint8_t* codes, size_t size, const uint8_t* scales, Output output) {
  for (size_t i = 0; i < size; ++i) {
    output.Store(i, kE2m1Values[codes[i / 2] >> (4 * (i % 2)) & 15] * DecodeE8m0(scales[i / kBlock]));
  }
}

ErrorSums Mxfp8Error(Row row, const uint8_t* codes, const uint8_t* scales) {
  ErrorParts parts;
  AddErrors(
      row, kBlock, kE4m3Max, [&](size_t i) { return DecodeE4m3(codes[i]); },
      [&](size_t g) { return DecodeE8m0(scales[g]); }, &parts);
  return parts.Sum(row.size);
}

ErrorSums Mxfp4Error(Row row, const uint8_t* codes, const uint8_t* scales) {
  ErrorParts parts;
  AddErrors(
      row, kBlock, kE2m1Max, [&](size_t i) { return kE2m1Values[codes[i / 2] >> (4 * (i % 2)) & 15]; },
      [&](size_t g) { return DecodeE8m0(scales[g]); }, &parts);
  return parts.Sum(row.size);
}

}  // namespace quantport::quantize::reference
