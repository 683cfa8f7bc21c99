// compressed-tensors' packed formats (https://github.com/vllm-project/compressed-tensors, compressors/):
//   pack-quantized: b-bit integers, a row being one stream of bits in 32-bit words
//     weight_packed      I32  [out, cdiv(in*b, 32)]
//     weight_scale       any  [out, in/g], [out, 1] or [1]
//     weight_zero_point  I32  [cdiv(out*b, 32), in/g]   packed along the output, I8 [1] beside one scale
//     weight_g_idx       I32  [in]                      the group of each input, with activation order
//     weight_shape       I64  [2] = out, in
//   nvfp4-pack-quantized
//     weight_packed  U8 [out, in/2], weight_scale F8_E4M3 [out, in/16], weight_global_scale and input_global_scale
//     F32 [1], by which to divide
//   mxfp4-pack-quantized
//     weight_packed  U8 [out, in/2], weight_scale U8 [out, in/32]
// Its other formats keep the leaf "weight" and are stored as FP8, INT8 and MXFP8 are elsewhere.
#include <fmt/format.h>

#include <cstring>

#include "base/checked.h"
#include "format/families.h"
#include "format/forms.h"
#include "format/leaves.h"

namespace quantport {
namespace {

constexpr Format kFormats[] = {{FormatId::kPackQuantized, "pack-quantized"},
                               {FormatId::kNvfp4Pack, "nvfp4-pack-quantized"},
                               {FormatId::kMxfp4Pack, "mxfp4-pack-quantized"}};
constexpr std::string_view kStatedShape = "weight_shape";
constexpr std::string_view kGroupIndex = "weight_g_idx";

// ---- floats ------------------------------------------------------------------------------------------------------

void AddFp4(const Proposal& proposal, std::vector<Part>* parts) {
  const Shape& logical = proposal.shape;
  const size_t dim = logical.size() - 1;
  const bool nvfp4 = proposal.format == FormatId::kNvfp4Pack;
  parts->push_back({Role::kValues, leaf::kWeightPacked, {DType::kU8}, {PackedForm(logical, Axis{dim, 2}, dim)}});
  parts->push_back({Role::kScale, leaf::kWeightScale, nvfp4 ? DTypes{DType::kF8E4M3} : kPowers,
                    GroupForms(logical, dim, proposal.variant.group)});
  if (!nvfp4) return;
  parts->push_back(ScalarPart(Role::kGlobalScale, leaf::kWeightGlobalScale, {DType::kF32}, logical, true));
  parts->push_back(ScalarPart(Role::kInputGlobalScale, leaf::kInputGlobalScale, kNumbers, logical, false));
}

void ProposeFp4(const StoredModule& module, const StoredLeaf& scale, std::vector<Proposal>* proposals) {
  const bool nvfp4 = scale.dtype == DType::kF8E4M3 || module.Has(leaf::kWeightGlobalScale);
  Proposal proposal{nvfp4 ? FormatId::kNvfp4Pack : FormatId::kMxfp4Pack,
                    {module.value().shape.begin(), module.value().shape.end()},
                    {}};
  proposal.shape.back() *= 2;
  proposal.variant.granularity = Granularity::kGroups;
  proposal.variant.group = nvfp4 ? 16 : 32;
  if (proposal.shape.back() % proposal.variant.group != 0)
    proposal.misfit = fmt::format("{} inputs are no multiple of {}", proposal.shape.back(), proposal.variant.group);
  proposals->push_back(std::move(proposal));
}

// ---- integers ----------------------------------------------------------------------------------------------------

template <typename T>
std::vector<std::byte> ShapeBytes(std::span<const uint64_t> shape) {
  uint64_t weights = 1;
  for (size_t dim = 0; dim + 2 < shape.size(); ++dim) weights *= shape[dim];
  std::vector<std::byte> bytes(weights * 2 * sizeof(T));
  for (uint64_t i = 0; i < weights * 2; ++i) {
    const auto size = static_cast<T>(shape[shape.size() - 2 + i % 2]);
    std::memcpy(&bytes[i * sizeof(T)], &size, sizeof(T));
  }
  return bytes;
}

// The number of inputs that weight_shape states, or nothing where it is no shape for this many rows.
std::optional<uint64_t> StatedInputs(const StoredModule& module, const StoredLeaf& stated, const std::string& bytes) {
  const size_t width = stated.dtype == DType::kI64 ? 8 : 4;
  if (bytes.size() < 2 * width || (stated.dtype != DType::kI64 && stated.dtype != DType::kI32)) return std::nullopt;
  uint64_t sizes[2] = {0, 0};
  for (size_t i = 0; i < 2; ++i) std::memcpy(&sizes[i], bytes.data() + i * width, width);
  const auto& words = module.value().shape;
  // A word holds at least 4 values of 8 bits and at most 32 of 1 bit.
  const bool fits = sizes[0] == words[words.size() - 2] && sizes[1] <= words.back() * 32 && words.back() > 0 &&
                    sizes[1] > (words.back() - 1) * 4;
  return fits ? std::optional(sizes[1]) : std::nullopt;
}

struct Packing {
  uint64_t inputs;
  uint64_t bits;
};

// Bits from the rows that zero points pack, and the shape from weight_shape, or from the config where that can't be
// read.
std::optional<Packing> FindPacking(const StoredModule& module) {
  const uint64_t columns = module.value().shape.back();
  const StoredLeaf* stated = module.Find(kStatedShape);
  const uint64_t bits = module.options.bits;
  if (const auto bytes = stated == nullptr ? std::nullopt : module.Read(*stated)) {
    const auto inputs = StatedInputs(module, *stated, *bytes);
    if (!inputs) return std::nullopt;
    // Rows of less than 32 values may fit several widths; the config's is then as good as any.
    if (bits > 0 && bits <= 8 && CeilDiv(*inputs * bits, 32) == columns) return Packing{*inputs, bits};
    for (uint64_t width = 1; width <= 8; ++width) {
      if (CeilDiv(*inputs * width, 32) == columns) return Packing{*inputs, width};
    }
    return std::nullopt;
  }
  if (bits == 0 || bits > 8 || columns * 32 % bits != 0) return std::nullopt;
  return Packing{columns * 32 / bits, bits};
}

// One for the whole weight is stored as the signed number that it is; others are packed along the rows, with the
// dimensions of the weight whichever the scales have.
Part ZeroPart(const Shape& logical, const Variant& variant) {
  if (variant.granularity == Granularity::kTensor)
    return ScalarPart(Role::kZeroPoint, leaf::kWeightZeroPoint, {DType::kI8}, logical, false);
  Axes axes = ScaleForms(logical, variant).back().axes;
  if (auto& rows = axes[logical.size() - 2])
    rows = PackedAxis(rows->dim, logical[logical.size() - 2], variant.bits, 32);
  Form form = FormOf(logical, logical.size(), std::move(axes));
  return {Role::kZeroPoint, leaf::kWeightZeroPoint, {DType::kI32}, {std::move(form)}, false};
}

Part StatedShapePart(const Shape& logical, bool wide) {
  Axes axes(logical.size());
  if (logical.size() == 3) axes[0] = Axis{0, 1};
  Form form = FormOf(logical, logical.size() - 1, std::move(axes));
  form.shape.back() = 2;
  Part part{Role::kStatedShape, kStatedShape, {DType::kI64, DType::kI32}, {std::move(form)}, false};
  part.restate = wide ? ShapeBytes<int64_t> : ShapeBytes<int32_t>;
  return part;
}

void AddIntegers(const Proposal& proposal, std::vector<Part>* parts) {
  const Shape& logical = proposal.shape;
  const Variant& variant = proposal.variant;
  const size_t dim = logical.size() - 1;
  const Axis words = PackedAxis(dim, logical[dim], variant.bits, 32);
  parts->push_back({Role::kValues, leaf::kWeightPacked, {DType::kI32}, {PackedForm(logical, words, dim)}});
  parts->push_back({Role::kScale, leaf::kWeightScale, kNumbers, ScaleForms(logical, variant)});
  parts->push_back(ZeroPart(logical, variant));
  Axes index(logical.size());
  index.back() = WholeAxis(0, logical.back(), logical.back(), "the groups of inputs are numbered through");
  parts->push_back({Role::kGroupIndex, kGroupIndex, {DType::kI32}, {FormOf(logical, 1, std::move(index))}, false});
  if (logical.size() <= 3) parts->push_back(StatedShapePart(logical, !variant.narrow_shape));
  parts->push_back(ScalarPart(Role::kInputZeroPoint, leaf::kInputZeroPoint, {DType::kI8, DType::kI32}, logical, false));
}

void ProposeIntegers(const StoredModule& module, const StoredLeaf& scale, std::vector<Proposal>* proposals) {
  const auto packing = FindPacking(module);
  const StoredLeaf* stated = module.Find(kStatedShape);
  const auto add = [&](Granularity granularity, uint64_t group) {
    Proposal proposal{FormatId::kPackQuantized, {module.value().shape.begin(), module.value().shape.end()}, {}};
    proposal.variant.granularity = granularity;
    proposal.variant.group = group;
    proposal.variant.bits = packing ? packing->bits : 4;
    proposal.variant.narrow_shape = stated != nullptr && stated->dtype == DType::kI32;
    proposal.shape.back() = packing ? packing->inputs : proposal.shape.back() * 8;
    if (!packing)
      proposal.misfit = stated == nullptr ? "neither weight_shape nor the config says how many values a row has"
                                          : "weight_shape is no shape of as many rows and words";
    proposals->push_back(std::move(proposal));
  };
  add(Granularity::kTensor, 0);
  add(Granularity::kRows, 0);
  if (!packing || scale.shape.size() != module.value().shape.size()) return;
  if (const auto group = GroupSize(packing->inputs, scale.shape.back())) add(Granularity::kGroups, *group);
}

// ---- both --------------------------------------------------------------------------------------------------------

std::vector<Part> PackedParts(const Proposal& proposal) {
  std::vector<Part> parts;
  parts.reserve(8);
  if (proposal.format == FormatId::kPackQuantized) {
    AddIntegers(proposal, &parts);
  } else {
    AddFp4(proposal, &parts);
  }
  AddActivationScales(proposal.shape, &parts);
  return parts;
}

void Propose(const StoredModule& module, std::vector<Proposal>* proposals) {
  const StoredLeaf* scale = module.Find(leaf::kWeightScale);
  const StoredLeaf& value = module.value();
  if (value.leaf != leaf::kWeightPacked || scale == nullptr || value.shape.size() < 2) return;
  if (value.dtype == DType::kU8) {
    ProposeFp4(module, *scale, proposals);
  } else {
    ProposeIntegers(module, *scale, proposals);
  }
}

std::optional<std::string> Missing(const StoredModule& module) {
  if (module.value().leaf != leaf::kWeightPacked) return std::nullopt;
  const StoredLeaf* scale = module.Find(leaf::kWeightScale);
  if (scale == nullptr) return "weight_scale is missing beside weight_packed";
  if (module.value().dtype == DType::kU8 && scale->dtype == DType::kF8E4M3 && !module.Has(leaf::kWeightGlobalScale))
    return "weight_global_scale is missing: NVFP4 block scales are relative to it";
  return std::nullopt;
}

}  // namespace

const Family kCompressedTensorsFamily = {kFormats, PackedParts, Propose, Missing};

}  // namespace quantport
