// Formats that configs give one name.
#pragma once

#include <vector>

#include "format/format_id.h"

namespace quantport {

using FormatSet = std::vector<FormatId>;

inline FormatSet Nvfp4Formats() {
  return {FormatId::kNvfp4, FormatId::kNvfp4WeightOnly, FormatId::kNvfp4Awq, FormatId::kNvfp4Svd,
          FormatId::kW4A8Nvfp4Fp8};
}
inline FormatSet Fp8Formats() {
  return {FormatId::kFp8PerTensor, FormatId::kFp8PerChannel, FormatId::kFp8Block, FormatId::kFp8Group};
}
inline FormatSet Mxfp4Formats() { return {FormatId::kMxfp4, FormatId::kW4A8Mxfp4Fp8}; }
inline FormatSet Int8Formats() { return {FormatId::kInt8, FormatId::kInt8SmoothQuant, FormatId::kIntQuantized}; }
inline FormatSet Int4Formats() { return {FormatId::kInt4, FormatId::kW4A8Awq}; }

}  // namespace quantport
