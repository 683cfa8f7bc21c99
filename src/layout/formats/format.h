// A row of the layout table, and what the rows are made of: axes, and the question whether a tensor has them.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "layout/layouts.h"
#include "layout/logical_weight.h"

namespace quantport {

using Axes = std::vector<std::optional<Axis>>;
using Shape = std::vector<uint64_t>;

// A weight whose layout is being decided.
struct Candidate {
  LogicalWeight* weight;
  std::string_view key;
  const RecognizeOptions& options;

  StoredPart& value() const { return weight->parts[0]; }
  DType dtype() const { return value().array.dtype; }
  const Shape& stored() const { return value().array.shape; }
  // The value tensor has the module's (or the bare parameter's) own name.
  bool HasOwnName() const { return value().leaf == "weight" || value().leaf.empty(); }
  StoredPart* Find(std::string_view leaf) const;
  // The bytes of a small part, or nothing where they can't be had: a reference of headers alone.
  std::optional<std::string> Read(const StoredPart& part) const;
};

struct FormatLabel {
  FormatId format;
  std::string_view name;  // for people and JSON
};

struct Format {
  std::span<const FormatLabel> labels;
  // Fills layout, shape and the axes of the parts that are this format's own; false where the tensors are another's.
  // Parts that every format treats alike are filled by the table.
  bool (*recognize)(const Candidate& candidate);
  // What the format's tensors call for and don't have.
  std::optional<std::string> (*missing)(const LogicalWeight& weight) = nullptr;
};

// ---- dtypes
// ----------------------------------------------------------------------------------------------------------

bool IsFp8Values(DType dtype);
// Scales that are powers of two: E8M0, which most producers store as U8.
bool IsPowerScale(DType dtype);
// Scales that are numbers: F32, BF16, F16.
bool IsNumberScale(DType dtype);

// ---- axes
// ------------------------------------------------------------------------------------------------------------

// Every logical dimension is the stored one of the same place, element for element.
Axes SameDims(size_t rank);
// `bits` wide values one after the other in words of `word_bits`: whole words where the values fill them.
Axis PackedAxis(size_t dim, uint64_t size, uint64_t bits, uint64_t word_bits);
// `count` values in each stored element.
Axis PackedAxis(size_t dim, uint64_t count);
// A dimension that is all or nothing.
Axis WholeAxis(size_t dim, uint64_t size, uint64_t stored, std::string_view why);
// Values that share a scale where `count` scales stand for `size` values: as the config says if that fits, else evenly.
std::optional<uint64_t> GroupSize(uint64_t size, uint64_t count, const RecognizeOptions& options);

// Gives the part these axes if its shape is what they say: a stored dimension that carries no logical one has size 1.
bool Fit(StoredPart* part, const Shape& logical, Axes axes);
// Likewise, where a stored dimension without a logical one may have any size.
bool FitLoosely(StoredPart* part, const Shape& logical, Axes axes);

// One number for the whole weight, or for each entry of a leading expert dimension: [], [1], [E], [E, 1], [E, 1, 1].
bool FitScalar(StoredPart* part, const Shape& logical);
// One number for each output row: [out], [out, 1], and the same behind an expert dimension.
bool FitRows(StoredPart* part, const Shape& logical);
// One number for `group` values along dimension `dim` of each row: [out, in/group].
bool FitGroups(StoredPart* part, const Shape& logical, size_t dim, uint64_t group);
// As many groups along the last dimension as the shape says.
bool FitAnyGroups(StoredPart* part, const Shape& logical, const RecognizeOptions& options);
// One number for each tile: [.., cdiv(out), cdiv(in)], or ModelOpt's [cdiv(out), 1, cdiv(in), 1].
bool FitTiles(StoredPart* part, const Shape& logical, const std::array<uint64_t, 2>& tile);
// One number for each input, which is the logical dimension `dim`: [in], also shared by or repeated for experts.
bool FitInputs(StoredPart* part, const Shape& logical, size_t dim);
// A part of the same shape as another one, which has its axes.
bool FitLike(StoredPart* part, const StoredPart& other);

}  // namespace quantport
