#include "format/forms.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/checked.h"
#include "format/leaves.h"

namespace quantport {

Axes SameDims(size_t rank) {
  Axes axes;
  axes.reserve(rank);
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

std::optional<uint64_t> GroupSize(uint64_t size, uint64_t count) {
  if (count == 0 || size == 0 || size % count != 0) return std::nullopt;
  return size / count;
}

Form FormOf(const Shape& logical, size_t rank, Axes axes) {
  Form form{Shape(rank, 1), std::move(axes)};
  // A plan that came as bytes may state any shape and variant for a format.
  for (size_t dim = 0; dim < std::min(logical.size(), form.axes.size()); ++dim) {
    if (const auto& axis = form.axes[dim])
      form.shape[axis->dim] = CeilDiv(logical[dim], std::max<uint64_t>(axis->granularity, 1)) * axis->multiple;
  }
  return form;
}

Form SameForm(const Shape& logical) { return {logical, SameDims(logical.size())}; }

Form PackedForm(const Shape& logical, const Axis& axis, size_t dim) {
  Axes axes = SameDims(logical.size());
  axes[dim] = axis;
  return FormOf(logical, logical.size(), std::move(axes));
}

std::vector<Form> ScalarForms(const Shape& logical) {
  std::vector<Form> forms;
  if (logical.size() == 3) {
    Axes experts(3);
    experts[0] = Axis{0, 1};
    for (const size_t rank : {1, 2, 3}) forms.push_back(FormOf(logical, rank, experts));
  }
  for (size_t rank = 0; rank <= std::max<size_t>(logical.size(), 1); ++rank)
    forms.push_back(FormOf(logical, rank, Axes(logical.size())));
  return forms;
}

std::vector<Form> RowForms(const Shape& logical) {
  if (logical.size() < 2) return {};
  Axes axes = SameDims(logical.size());
  axes.back().reset();
  return {FormOf(logical, logical.size() - 1, axes), FormOf(logical, logical.size(), axes)};
}

std::vector<Form> GroupForms(const Shape& logical, size_t dim, uint64_t group) {
  Axes axes = SameDims(logical.size());
  axes[dim]->granularity = std::max<uint64_t>(group, 1);
  return {FormOf(logical, logical.size(), std::move(axes))};
}

std::vector<Form> TileForms(const Shape& logical, const std::array<uint64_t, 2>& tile) {
  const size_t rank = logical.size();
  if (rank < 2) return {};
  std::vector<Form> forms;
  if (rank == 2) forms.push_back(FormOf(logical, 4, {Axis{0, tile[0]}, Axis{2, tile[1]}}));
  Axes axes = SameDims(rank);
  axes[rank - 2]->granularity = tile[0];
  axes[rank - 1]->granularity = tile[1];
  forms.push_back(FormOf(logical, rank, std::move(axes)));
  return forms;
}

std::vector<Form> InputForms(const Shape& logical, size_t dim) {
  const auto form = [&](size_t rank, bool experts) {
    Axes axes(logical.size());
    if (experts) axes[0] = Axis{0, 1};
    axes[dim] = Axis{rank - 1, 1};
    return FormOf(logical, rank, std::move(axes));
  };
  if (logical.size() == 3) return {form(1, false), form(2, true), form(3, true)};
  return {form(1, false)};
}

std::vector<Form> ScaleForms(const Shape& logical, const Variant& variant) {
  switch (variant.granularity) {
    case Granularity::kRows:
      return RowForms(logical);
    case Granularity::kGroups:
      return GroupForms(logical, logical.size() - 1, variant.group);
    case Granularity::kTiles:
      return TileForms(logical, variant.tile);
    case Granularity::kTensor:
    case Granularity::kColumns:
    case Granularity::kHalves:
      break;
  }
  return ScalarForms(logical);
}

std::string OfBatchedExperts(FormatId format) {
  return std::string(FormatName(format)) + " of experts that are kept in one tensor with inputs before outputs";
}

Part ScalarPart(Role role, std::string_view leaf, const DTypes& dtypes, const Shape& logical, bool required) {
  Part part{role, leaf, dtypes, ScalarForms(logical), required};
  part.written = static_cast<size_t>(
      std::find_if(part.forms.begin(), part.forms.end(), [](const Form& form) { return form.shape.empty(); }) -
      part.forms.begin());
  return part;
}

void AddActivationScales(const Shape& logical, std::vector<Part>* parts) {
  parts->push_back(ScalarPart(Role::kInputScale, leaf::kInputScale, kNumbers, logical, false));
  parts->push_back(ScalarPart(Role::kOutputScale, leaf::kOutputScale, kNumbers, logical, false));
}

Part SmoothingPart(const Shape& logical, size_t dim, bool required) {
  return {Role::kSmoothing,
          leaf::kPreQuantScale,
          {DType::kBF16, DType::kF16, DType::kF32},
          InputForms(logical, dim),
          required};
}

}  // namespace quantport
