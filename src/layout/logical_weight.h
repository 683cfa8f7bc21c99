// One logical weight with everything that is stored for it, and the table of quantized layouts.
//
// A layout says for each stored tensor which of its dimensions carries which dimension of the logical weight, and how
// many logical elements one stored element stands for. Operations act on the logical weight; the axes lift them to
// every stored tensor, so a new layout is a row here and a new operation one function, not a table of cases.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "format/format_id.h"
#include "layout/array.h"
#include "quantport/error.h"

namespace quantport {

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

// One stored tensor of a logical weight.
struct StoredPart {
  std::string leaf;  // "weight", "weight_scale", "bias", ...; "" for the value of a bare parameter
  Array array;
  std::vector<std::optional<Axis>> axes;  // per logical dimension; nothing: the tensor is the same all along it
  // How it is joined to a parameter that is not called weight, where that is not "_" + leaf.
  std::string suffix = {};
  // Of a tensor that states the logical shape in its bytes (weight_shape): its bytes for another shape.
  std::function<std::vector<std::byte>(std::span<const uint64_t> shape)> restate = {};
};

struct LogicalWeight {
  FormatId format = FormatId::kPlain;
  std::vector<uint64_t> shape;  // logical, in elements; for kOther that of the value tensor as stored
  std::vector<StoredPart> parts;

  const StoredPart* Find(std::string_view leaf) const;
};

struct SharedScales;

// Elements [begin, begin + length) along logical dimension `dim`.
Result<LogicalWeight> SliceWeight(const LogicalWeight& weight, size_t dim, uint64_t begin, uint64_t length);

// Part `index` of `count` equal parts along logical dimension `dim`.
Result<LogicalWeight> Chunk(const LogicalWeight& weight, size_t dim, uint64_t count, uint64_t index);

// One after the other along `dim`; what is broadcast along it must be equal, which is left to `shared`.
Result<LogicalWeight> ConcatenateWeights(const std::vector<LogicalWeight>& weights, size_t dim, SharedScales* shared);

// Entry `index` along logical dimension `dim`, which goes away.
Result<LogicalWeight> Unstack(const LogicalWeight& weight, size_t dim, uint64_t index);

// Side by side along a new logical dimension `dim`; scalars become [count].
Result<LogicalWeight> StackWeights(const std::vector<LogicalWeight>& weights, size_t dim);

}  // namespace quantport
