#include "layout/formats/format.h"

#include <algorithm>
#include <numeric>

#include "base/checked.h"

namespace quantport {
namespace {

// The stored extent that an axis calls for.
uint64_t StoredSize(const Axis& axis, uint64_t size) { return CeilDiv(size, axis.granularity) * axis.multiple; }

bool FitAxes(StoredPart* part, const Shape& logical, Axes axes, bool rest_is_one) {
  const Shape& shape = part->array.shape;
  std::vector<bool> carried(shape.size());
  for (size_t dim = 0; dim < logical.size(); ++dim) {
    if (!axes[dim]) continue;
    if (axes[dim]->dim >= shape.size() || shape[axes[dim]->dim] != StoredSize(*axes[dim], logical[dim])) return false;
    carried[axes[dim]->dim] = true;
  }
  for (size_t dim = 0; dim < shape.size(); ++dim) {
    if (rest_is_one && !carried[dim] && shape[dim] != 1) return false;
  }
  part->axes = std::move(axes);
  return true;
}

}  // namespace

StoredPart* Candidate::Find(std::string_view leaf) const {
  for (StoredPart& part : weight->parts) {
    if (part.leaf == leaf) return &part;
  }
  return nullptr;
}

std::optional<std::string> Candidate::Read(const StoredPart& part) const {
  if (!options.read || part.array.blocks.size() != 1) return std::nullopt;
  return options.read(part.array.blocks[0].tensor);
}

bool IsFp8Values(DType dtype) { return dtype == DType::kF8E4M3 || dtype == DType::kF8E5M2; }

bool IsPowerScale(DType dtype) { return dtype == DType::kU8 || dtype == DType::kF8E8M0; }

bool IsNumberScale(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16 || dtype == DType::kF64;
}

Axes SameDims(size_t rank) {
  Axes axes;
  for (size_t dim = 0; dim < rank; ++dim) axes.push_back(Axis{dim, 1});
  return axes;
}

Axis PackedAxis(size_t dim, uint64_t size, uint64_t bits, uint64_t word_bits) {
  const uint64_t common = std::gcd(bits, word_bits);
  const Axis axis{dim, word_bits / common, bits / common, {}, word_bits > bits};
  if (axis.multiple == 1 || size % axis.granularity == 0) return axis;
  return WholeAxis(dim, size, CeilDiv(size * bits, word_bits), "values straddle words, and the last one is not full");
}

Axis PackedAxis(size_t dim, uint64_t count) { return {dim, count, 1, {}, true}; }

Axis WholeAxis(size_t dim, uint64_t size, uint64_t stored, std::string_view why) {
  return {dim, std::max<uint64_t>(size, 1), stored, why};
}

std::optional<uint64_t> GroupSize(uint64_t size, uint64_t count, const RecognizeOptions& options) {
  if (count == 0 || size == 0) return std::nullopt;
  if (options.group_size > 0 && CeilDiv(size, options.group_size) == count) return options.group_size;
  return size % count == 0 ? std::optional(size / count) : std::nullopt;
}

bool Fit(StoredPart* part, const Shape& logical, Axes axes) { return FitAxes(part, logical, std::move(axes), true); }

bool FitLoosely(StoredPart* part, const Shape& logical, Axes axes) {
  return FitAxes(part, logical, std::move(axes), false);
}

bool FitScalar(StoredPart* part, const Shape& logical) {
  Axes axes(logical.size());
  if (logical.size() == 3) {
    axes[0] = Axis{0, 1};
    if (Fit(part, logical, axes)) return true;
    axes[0].reset();
  }
  return Fit(part, logical, std::move(axes));
}

bool FitRows(StoredPart* part, const Shape& logical) {
  if (logical.size() < 2) return false;
  Axes axes = SameDims(logical.size());
  axes.back().reset();
  return part->array.shape.size() <= logical.size() && Fit(part, logical, std::move(axes));
}

bool FitGroups(StoredPart* part, const Shape& logical, size_t dim, uint64_t group) {
  if (part->array.shape.size() != logical.size() || dim >= logical.size() || group == 0) return false;
  Axes axes = SameDims(logical.size());
  axes[dim]->granularity = group;
  return Fit(part, logical, std::move(axes));
}

bool FitAnyGroups(StoredPart* part, const Shape& logical, const RecognizeOptions& options) {
  if (part->array.shape.size() != logical.size() || logical.empty()) return false;
  const auto group = GroupSize(logical.back(), part->array.shape.back(), options);
  return group && FitGroups(part, logical, logical.size() - 1, *group);
}

bool FitTiles(StoredPart* part, const Shape& logical, const std::array<uint64_t, 2>& tile) {
  if (logical.size() < 2) return false;
  if (logical.size() == 2 && part->array.shape.size() == 4)
    return Fit(part, logical, {Axis{0, tile[0]}, Axis{2, tile[1]}});
  if (part->array.shape.size() != logical.size()) return false;
  Axes axes = SameDims(logical.size());
  axes[logical.size() - 2]->granularity = tile[0];
  axes[logical.size() - 1]->granularity = tile[1];
  return Fit(part, logical, std::move(axes));
}

bool FitInputs(StoredPart* part, const Shape& logical, size_t dim) {
  const size_t rank = part->array.shape.size();
  if (rank == 0 || dim >= logical.size()) return false;
  Axes axes(logical.size());
  if (logical.size() == 3 && rank > 1) axes[0] = Axis{0, 1};
  axes[dim] = Axis{rank - 1, 1};
  return Fit(part, logical, std::move(axes));
}

bool FitLike(StoredPart* part, const StoredPart& other) {
  if (part->array.shape != other.array.shape) return false;
  part->axes = other.axes;
  return true;
}

}  // namespace quantport
