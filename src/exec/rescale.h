// One scale in the place of several: which it is, and what becomes of codes that were stored under another.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
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

// `scalars` are the bytes of each, `names` the tensors they are of. Errors: kQuantConversionUnsupported for scalars
// that are no positive numbers.
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

// What re-expressing cost one tensor of the result, over the elements it rounded again.
struct RescaleError {
  std::string tensor;
  std::string scalar;           // leaf of the merged scalar, for example "weight_scale_2"
  uint64_t elements = 0;        // values, or block scales
  uint64_t changed = 0;         // of them, those that the common scale does not represent exactly
  double rms_relative = 0;      // root of sum of squared errors over sum of squares
  double largest_relative = 0;  // of one element
};

// Sums the errors up, an entry for each tensor and scalar; what belongs to one follows each other.
class RescaleTally {
 public:
  // `count`: how often each code was met.
  void Add(const std::string& tensor, const std::string& scalar, const RescaledCodes& codes,
           const std::array<uint64_t, 256>& count);
  std::vector<RescaleError> Take() { return std::move(entries_); }

 private:
  std::vector<RescaleError> entries_;
  double squares_ = 0;
  double errors_ = 0;
};

}  // namespace quantport
