// One logical weight with everything that is stored for it.
//
// Its format (src/format) says for each stored tensor which of its dimensions carries which dimension of the logical
// weight, and how many logical elements one stored element stands for. Operations act on the logical weight; the axes
// lift them to every stored tensor, so a new format is a row there and a new operation one function, not a table of
// cases.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "format/format.h"
#include "format/leaf_spellings.h"
#include "format/match.h"
#include "format/shape.h"
#include "layout/array.h"
#include "quantport/error.h"

namespace quantport {

// One stored tensor of a logical weight.
struct StoredPart {
  std::string leaf;  // "weight", "weight_scale", "bias", ...; "" for the value of a bare parameter
  Array array;
  Axes axes;
  // How it is joined to a parameter that is not called weight, where that is not "_" + leaf.
  std::string suffix = {};
  // Its name below the module, where that is not the leaf.
  const LeafSpelling* spelling = nullptr;
  // Of a tensor that states the logical shape in its bytes (weight_shape): its bytes for another shape.
  std::function<std::vector<std::byte>(std::span<const uint64_t> shape)> restate = {};
  Role role = Role::kValues;
};

struct LogicalWeight {
  FormatId format = FormatId::kPlain;
  std::vector<uint64_t> shape;  // logical, in elements; for kUnrecognized that of the value tensor as stored
  std::vector<StoredPart> parts;
  Variant variant = {};                       // as recognized; cutting and joining leave it as it was
  std::shared_ptr<const Misfit> misfit = {};  // of kUnrecognized, or of what the config contradicts

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
