// Errors of a row in plain C++, element by element.
#pragma once

#include "quantize/kernels.h"

namespace quantport::quantize::reference {

// `value(i)` is what the code of element i stands for, `scale(g)` the scale of group g, `largest` the largest value.
template <typename Value, typename Scale>
void AddErrors(Row row, size_t group, float largest, const Value& value, const Scale& scale, ErrorParts* parts) {
  for (size_t i = 0; i < row.size; ++i) {
    const float factor = scale(i / group);
    parts->Add(i % group % ErrorParts::kParts, LoadElement(row, i), value(i) * factor, ErrorLimit(largest, factor));
  }
}

}  // namespace quantport::quantize::reference
