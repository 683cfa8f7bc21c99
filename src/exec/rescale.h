// One scale in the place of several: which it is, and what becomes of codes that were stored under another.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "plan/plan.h"
#include "quantport/dtype.h"
#include "quantport/error.h"

namespace quantport {

struct CommonScale {
  std::vector<double> scales;  // of each part; reciprocals undone
  double common = 0;           // the largest
  size_t winner = 0;           // the part whose it is
};

// `scalars` are the bytes of each, `names` the tensors they are of. Errors: kQuantConversionUnsupported for scalars that
// are no positive numbers.
Result<CommonScale> FindCommonScale(const std::string& leaf, DType dtype, bool reciprocal,
                                    const std::vector<std::vector<std::byte>>& scalars,
                                    const std::vector<std::string>& names);

struct RescaledCodes {
  std::array<uint8_t, 256> code = {};    // what each code becomes
  std::array<double, 256> squared = {};  // its squared error, and
  std::array<double, 256> value = {};    // its value, both in units of the common scale
};

// For codes under a scale that is `factor` times the common one.
RescaledCodes RescaleCodes(ScaleStep::Kind kind, DType dtype, double factor);

}  // namespace quantport
