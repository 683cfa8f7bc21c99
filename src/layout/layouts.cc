#include "layout/layouts.h"

#include <algorithm>
#include <array>

#include "layout/formats/formats.h"

namespace quantport {
namespace {

// The table. The first row whose format the tensors have decides; rows exclude each other but for plain, which is last.
constexpr std::array<const Format*, 13> kFormats = {
    &kNvfp4Format,  &kMxFormat,   &kFp4BlockFormat, &kBitsAndBytesFormat,
    &kFp8Format,    &kInt4Format, &kInt8Format,     &kCompressedTensorsFormat,
    &kGptOssFormat, &kGptqFormat, &kAwqFormat,      &kQuarkFormat,
    &kPlainFormat,
};

// Leaves that mean the same in every format, one number for the weight or for each expert.
constexpr std::array<std::string_view, 7> kScalarLeaves = {
    "input_scale",      "input_zero_point", "input_global_scale", "output_scale",
    "activation_scale", "weight_scale_2",   "weight_global_scale"};

// The axes of a part that no format claims for itself. False where it fits none.
bool FillSharedPart(StoredPart* part, const Shape& logical) {
  if (std::find(kScalarLeaves.begin(), kScalarLeaves.end(), part->leaf) != kScalarLeaves.end())
    return FitScalar(part, logical);
  return part->leaf == "pre_quant_scale" && !logical.empty() && FitInputs(part, logical, logical.size() - 1);
}

bool FillSharedParts(LogicalWeight* weight) {
  return std::all_of(weight->parts.begin(), weight->parts.end(), [&](StoredPart& part) {
    return !part.axes.empty() || weight->shape.empty() || FillSharedPart(&part, weight->shape);
  });
}

// Beyond what any tensor has, and far enough from 2^64 that no format's factors overflow: a tensor without elements
// may state any size.
constexpr uint64_t kMaxSize = uint64_t{1} << 48;

bool IsSane(const LogicalWeight& weight) {
  return std::all_of(weight.parts.begin(), weight.parts.end(), [](const StoredPart& part) {
    return std::all_of(part.array.shape.begin(), part.array.shape.end(),
                       [](uint64_t size) { return size <= kMaxSize; });
  });
}

// What a format that was tried and did not fit has left behind.
void Clear(LogicalWeight* weight) {
  weight->format = FormatId::kOther;
  weight->shape = weight->parts[0].array.shape;
  for (StoredPart& part : weight->parts) {
    part.axes.clear();
    part.restate = nullptr;
  }
}

}  // namespace

std::string_view FormatName(FormatId id) {
  for (const Format* format : kFormats) {
    for (const FormatLabel& label : format->labels) {
      if (label.format == id) return label.name;
    }
  }
  return "other";
}

void FillLayout(LogicalWeight* weight, std::string_view key, const RecognizeOptions& options) {
  const Candidate candidate{weight, key, options};
  const bool sane = IsSane(*weight);
  for (const Format* format : kFormats) {
    Clear(weight);
    if (sane && format->recognize(candidate) && FillSharedParts(weight)) return;
  }
  Clear(weight);
  for (StoredPart& part : weight->parts) part.axes.assign(weight->shape.size(), std::nullopt);
}

void FillPlainLayout(LogicalWeight* weight) {
  weight->format = FormatId::kPlain;
  weight->shape = weight->parts[0].array.shape;
  weight->parts[0].axes = SameDims(weight->shape.size());
}

std::optional<std::string> MissingCompanion(const LogicalWeight& weight, bool quantized) {
  for (const Format* format : kFormats) {
    if (format->missing == nullptr) continue;
    if (auto message = format->missing(weight)) return message;
  }
  const StoredPart& value = weight.parts[0];
  if ((value.leaf != "weight" && !value.leaf.empty()) || value.array.shape.size() < 2) return std::nullopt;
  const bool input_only = weight.parts.size() == 2 && weight.parts[1].leaf == "input_scale";
  const bool packed = value.array.dtype == DType::kU8 || IsFp8Values(value.array.dtype);
  if (packed && (input_only || (quantized && weight.parts.size() == 1)))
    return "weight_scale is missing: the weight is quantized";
  return std::nullopt;
}

}  // namespace quantport
