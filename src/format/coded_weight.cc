#include "format/coded_weight.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

namespace quantport {
namespace {

Error Refuse(std::string message) { return {ErrorKind::kQuantConversionUnsupported, std::move(message), {}, {}, {}}; }

// Blocks and packed values along a dimension must be whole. Tiles need not be: their last ones are partial.
Status CheckWhole(const Encoding& encoding, const Shape& shape, const Variant& variant) {
  if (variant.granularity == Granularity::kTiles) return {};
  Shape units(shape.size(), 1);
  for (const Part& part : Parts(encoding.format, shape, variant)) {
    if (part.role != Role::kValues && part.role != Role::kScale) continue;
    const Axes& axes = part.forms[part.written].axes;
    for (size_t dim = 0; dim < shape.size(); ++dim) {
      if (dim < axes.size() && axes[dim]) units[dim] = std::max(units[dim], axes[dim]->granularity);
    }
  }
  for (size_t dim = shape.size(); dim-- > 0;) {
    if (shape[dim] % units[dim] == 0) continue;
    const bool inputs = (dim + 1 == shape.size()) != (shape.size() == 3);
    return Refuse(fmt::format("its {} {} are no multiple of {}, as the format needs", shape[dim],
                              inputs ? "inputs" : "outputs", units[dim]));
  }
  return {};
}

}  // namespace

bool HasItsParts(const CodedWeight& weight) {
  Variant variant = weight.variant;
  const bool groups = variant.granularity != Granularity::kGroups || variant.group > 0;
  const bool tiles = variant.granularity != Granularity::kTiles || (variant.tile[0] > 0 && variant.tile[1] > 0);
  if (!groups || !tiles || variant.bits > 8 || weight.shape.size() < 2 || FamilyOf(weight.format) == nullptr)
    return false;
  variant.group = std::max<uint64_t>(variant.group, 1);  // of formats that always have groups
  const std::vector<Part> parts = Parts(weight.format, weight.shape, variant);
  for (const Part& part : parts) {
    if (part.required && weight.Find(part.role) == nullptr) return false;
  }
  return std::all_of(weight.parts.begin(), weight.parts.end(), [&](const CodedPart& own) {
    return std::any_of(parts.begin(), parts.end(), [&](const Part& part) {
      return part.role == own.role && part.dtypes.Has(own.dtype) &&
             std::any_of(part.forms.begin(), part.forms.end(),
                         [&](const Form& form) { return form.shape == own.shape; });
    });
  });
}

bool IsFp4OfPowers(const CodedWeight& weight) {
  switch (weight.format) {
    case FormatId::kMxfp4:
    case FormatId::kW4A8Mxfp4Fp8:
    case FormatId::kMxfp4Pack:
    case FormatId::kMxfp4Blocks:
    case FormatId::kFp4Block:
      break;
    default:
      return false;
  }
  const CodedPart* scales = weight.Find(Role::kScale);
  return scales != nullptr && kPowers.Has(scales->dtype) && weight.Find(Role::kSmoothing) == nullptr;
}

bool CanCast(const CodedWeight& weight, const Target& target) {
  const Encoding& encoding = target.encoding;
  const bool nvfp4 = encoding.format == FormatId::kNvfp4 || encoding.format == FormatId::kNvfp4WeightOnly;
  return nvfp4 && encoding.search == ScaleSearch::kNone && !encoding.four_over_six && IsFp4OfPowers(weight) &&
         weight.variant.inputs_first == target.variant.inputs_first;
}

Result<Variant> WrittenVariant(const Encoding& encoding, const Shape& shape) {
  const Family* family = FamilyOf(encoding.format);
  Variant variant;
  std::optional<std::string> why;
  if (family == nullptr || family->written == nullptr) {
    why = std::string(FormatName(encoding.format));
  } else {
    why = family->written(encoding, shape, &variant);
  }
  if (why) return Refuse(*why + " can't be written");
  if (auto s = CheckWhole(encoding, shape, variant); !s) return s.errors();
  return variant;
}

}  // namespace quantport
