#include "quantize/error_sums.h"

#include <algorithm>

namespace quantport::quantize {

void ErrorSums::Add(const ErrorSums& other) {
  squared_error += other.squared_error;
  squares += other.squares;
  max_error = std::max(max_error, other.max_error);
  clipped += other.clipped;
  elements += other.elements;
}

void ErrorParts::Add(size_t part, float original, float dequantized, float limit) {
  const float error = std::fabs(original - dequantized);
  if (!std::isfinite(error)) return;  // as it is where either number is not
  squared_error[part] += static_cast<double>(error) * error;
  squares[part] += static_cast<double>(original) * original;
  max_error = std::max(max_error, error);
  clipped += std::fabs(original) > limit;
}

ErrorSums ErrorParts::Sum(size_t elements) const {
  ErrorSums sums = {0, 0, max_error, clipped, elements};
  for (size_t i = 0; i < kParts; ++i) {
    sums.squared_error += squared_error[i];
    sums.squares += squares[i];
  }
  return sums;
}

}  // namespace quantport::quantize
