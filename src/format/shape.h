// Shapes, and where the dimensions of a logical weight stand in a stored tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace quantport {

using Shape = std::vector<uint64_t>;

// Where a logical dimension lives in a stored tensor: every `granularity` logical elements are `multiple` stored ones.
// Mostly one of them is 1: two FP4 values a byte are {dim, 2}, 16 values a block scale {dim, 16}; a row of a tensor
// that is stored flattened is {0, 1, stored elements of a row}; 32 values of 3 bits in three words are {dim, 32, 3}.
struct Axis {
  size_t dim = 0;
  uint64_t granularity = 1;
  uint64_t multiple = 1;
  // Why the tensor can be neither cut nor joined along this dimension; "" where it can.
  std::string_view whole = {};
  // A stored element holds several values side by side, and is not one value that several logical elements share.
  bool packed = false;
};

// For each logical dimension where it stands; nothing: the tensor is the same all along it.
using Axes = std::vector<std::optional<Axis>>;

}  // namespace quantport
