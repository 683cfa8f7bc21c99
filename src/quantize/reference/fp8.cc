#include <bit>

#include "quantize/codes.h"
#include "quantize/reference/error.h"
#include "quantize/reference/reference.h"

namespace quantport::quantize::reference {

void Fp8(Row row, const float* scales, size_t group, bool round_quotient, uint8_t* codes) {
  for (size_t i = 0; i < row.size; ++i) {
    const float x = LoadElement(row, i);
    const float quotient = x / scales[i / group];
    const uint8_t code = EncodeE4m3(round_quotient ? RoundTo(row.type, quotient) : quotient);
    // What 0 / 0 has for a sign depends on the processor.
    codes[i] = static_cast<uint8_t>((code & 0x7F) | (std::bit_cast<uint32_t>(x) >> 24 & 0x80));
  }
}

void FromFp8(const uint8_t* codes, size_t size, const float* scales, size_t group, ScaleRounding rounding,
             Output output) {
  for (size_t i = 0; i < size; ++i) {
    const float scale = scales[i / group];
    output.Store(i,
                 DecodeE4m3(codes[i]) * (rounding == ScaleRounding::kToOutput ? RoundTo(output.type, scale) : scale));
  }
}

ErrorSums Fp8Error(Row row, const uint8_t* codes, const float* scales, size_t group) {
  ErrorParts parts;
  AddErrors(
      row, group, kE4m3Max, [&](size_t i) { return DecodeE4m3(codes[i]); }, [&](size_t g) { return scales[g]; },
      &parts);
  return parts.Sum(row.size);
}

}  // namespace quantport::quantize::reference
