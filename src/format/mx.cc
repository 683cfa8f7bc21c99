// OCP microscaling formats, blocks of 32 inputs with a power-of-two scale, as ModelOpt, compressed-tensors
// (mxfp8-quantized) and AMD Quark store them:
//   weight        F8_E4M3  [out, in]      MXFP8
//   weight        U8       [out, in*3/4]  MXFP6, 4 values in 3 bytes
//   weight        U8       [out, in/2]    MXFP4, input 2k in the low half of a byte
//   weight_scale  U8       [out, in/32]   E8M0: 2^(byte - 127); SGLang calls MXFP8's weight_scale_inv
//   input_scale   F32      []             W4A8_MXFP4_FP8 with calibrated activations
// Batched experts have the blocks along the last but one dimension, as everything else; ModelOpt itself leaves them
// along the last one, the outputs.
#include <fmt/format.h>

#include "format/coded_weight.h"
#include "format/families.h"
#include "format/forms.h"
#include "format/leaves.h"

namespace quantport {
namespace {

constexpr Format kFormats[] = {{FormatId::kMxfp8, "MXFP8"},
                               {FormatId::kMxfp6, "MXFP6"},
                               {FormatId::kMxfp4, "MXFP4"},
                               {FormatId::kW4A8Mxfp4Fp8, "W4A8_MXFP4_FP8", 448}};
constexpr uint64_t kBlock = 32;

uint64_t BitsOf(FormatId format) { return format == FormatId::kMxfp8 ? 8 : format == FormatId::kMxfp6 ? 6 : 4; }

std::vector<Part> MxParts(const Proposal& proposal) {
  const Shape& logical = proposal.shape;
  const size_t dim = logical.size() - (proposal.variant.inputs_first ? 2 : 1);
  const uint64_t bits = BitsOf(proposal.format);
  const Axis values = bits == 8 ? Axis{dim, 1} : PackedAxis(dim, logical[dim], bits, 8);
  std::vector<Part> parts;
  parts.reserve(5);
  parts.push_back({Role::kValues,
                   leaf::kWeight,
                   bits == 8 ? DTypes{DType::kF8E4M3} : DTypes{DType::kU8},
                   {PackedForm(logical, values, dim)}});
  parts.push_back({Role::kScale, proposal.variant.scale_inv ? leaf::kWeightScaleInv : leaf::kWeightScale, kPowers,
                   GroupForms(logical, dim, kBlock)});
  AddActivationScales(logical, &parts);
  parts.push_back(SmoothingPart(logical, dim, false));
  return parts;
}

FormatId IdOf(const StoredModule& module, uint64_t bits) {
  if (bits == 8) return FormatId::kMxfp8;
  if (bits == 6) return FormatId::kMxfp6;
  const bool fp8_inputs = module.Has(leaf::kInputScale) || module.options.algorithm == "W4A8_MXFP4_FP8";
  return fp8_inputs ? FormatId::kW4A8Mxfp4Fp8 : FormatId::kMxfp4;
}

void Propose(const StoredModule& module, std::vector<Proposal>* proposals) {
  const StoredLeaf& value = module.value();
  const size_t rank = value.shape.size();
  const bool fp8 = value.dtype == DType::kF8E4M3 || value.dtype == DType::kF8E5M2;
  if (!module.HasOwnName() || rank < 2 || (!fp8 && value.dtype != DType::kU8)) return;
  const StoredLeaf* scale = module.Find(leaf::kWeightScale);
  const bool scale_inv = scale == nullptr && fp8;
  if (scale_inv) scale = module.Find(leaf::kWeightScaleInv);
  if (scale == nullptr || !kPowers.Has(scale->dtype)) return;
  // Tiles of fine-grained FP8 with powers of two are no blocks, however large.
  if (scale_inv && (scale->shape.size() != rank || scale->shape[rank - 2] != value.shape[rank - 2])) return;
  for (const bool inputs_first : {false, true}) {
    const size_t dim = rank - (inputs_first ? 2 : 1);
    for (const uint64_t bits : {uint64_t{8}, uint64_t{4}, uint64_t{6}}) {
      if ((bits == 8) != fp8 || (inputs_first && (scale_inv || rank < 3)) || value.shape[dim] * 8 % bits != 0) continue;
      Proposal proposal{IdOf(module, bits), {value.shape.begin(), value.shape.end()}, {}};
      proposal.shape[dim] = value.shape[dim] * 8 / bits;
      proposal.variant.granularity = Granularity::kGroups;
      proposal.variant.group = kBlock;
      proposal.variant.inputs_first = inputs_first;
      proposal.variant.scale_inv = scale_inv;
      proposal.variant.bits = bits;
      if (proposal.shape[dim] % kBlock != 0)
        proposal.misfit = fmt::format("{} inputs are no multiple of {}", proposal.shape[dim], kBlock);
      proposals->push_back(std::move(proposal));
    }
  }
}

// Batched experts as ModelOpt leaves them: blocks run along the last dimension, the outputs.
std::optional<std::string> Written(const Encoding& encoding, const Shape&, Variant* variant) {
  if (encoding.format == FormatId::kMxfp6) return std::string(FormatName(encoding.format));
  variant->granularity = Granularity::kGroups;
  variant->group = kBlock;
  return std::nullopt;
}

}  // namespace

const Family kMxFamily = {kFormats, MxParts, Propose, nullptr, Written};

}  // namespace quantport
