// What the formats refuse, and sizes that do not fit each other.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/checked.h"
#include "quantize/element.h"
#include "quantize/scales.h"
#include "quantport/error.h"

namespace quantport::quantize {

inline Status Refuse(std::string message, std::string hint = {}) {
  return Error{ErrorKind::kQuantConversionUnsupported, std::move(message), {}, {}, std::move(hint)};
}

inline Status ExpectSize(std::string_view what, size_t size, size_t expected) {
  if (size == expected) return {};
  return Refuse(std::string(what) + " has " + std::to_string(size) + " elements and not the " +
                std::to_string(expected) + " that the shape asks for");
}

inline Status ExpectMultiple(std::string_view what, size_t size, size_t of) {
  if (size % of == 0) return {};
  return Refuse("its " + std::to_string(size) + " " + std::string(what) + " are no multiple of " + std::to_string(of) +
                    ", as the format needs",
                "leave this module out of the recipe");
}

// rows * columns, or nothing where the bytes at hand do not say the same.
inline Status ExpectMatrix(const Matrix& matrix) {
  const auto elements = CheckedMul<uint64_t>(matrix.rows, matrix.columns);
  const auto bytes = elements ? CheckedMul<uint64_t>(*elements, ElementBytes(matrix.type)) : std::nullopt;
  if (!bytes) return Refuse("the shape overflows");
  return ExpectSize("the weight's bytes", matrix.bytes.size(), *bytes);
}

inline Status ExpectBlock(BlockShape block) {
  return block.rows == 0 || block.columns == 0 ? Refuse("a block has no elements") : Status();
}

inline size_t BlockCount(size_t rows, size_t columns, BlockShape block) {
  return CeilDiv(rows, block.rows) * CeilDiv(columns, block.columns);
}

}  // namespace quantport::quantize
