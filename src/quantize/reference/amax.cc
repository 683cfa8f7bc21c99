#include <algorithm>
#include <cmath>

#include "quantize/reference/reference.h"

namespace quantport::quantize::reference {

void GroupAmax(Row row, size_t group, float* amax) {
  for (size_t first = 0; first < row.size; first += group) {
    const size_t end = std::min(row.size, first + group);
    uint32_t largest = 0;  // of magnitudes as integers: NaN is above infinity
    for (size_t i = first; i < end; ++i) {
      largest = std::max(largest, std::bit_cast<uint32_t>(LoadElement(row, i)) & 0x7FFFFFFF);
    }
    *amax++ = std::bit_cast<float>(largest);
  }
}

size_t FindNonfinite(Row row) {
  for (size_t i = 0; i < row.size; ++i) {
    if (!std::isfinite(LoadElement(row, i))) return i;
  }
  return row.size;
}

}  // namespace quantport::quantize::reference
