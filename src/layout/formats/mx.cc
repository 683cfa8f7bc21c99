// OCP microscaling formats, blocks of 32 inputs with a power-of-two scale, as ModelOpt, compressed-tensors
// (mxfp8-quantized) and AMD Quark store them:
//   weight        F8_E4M3  [out, in]      MXFP8
//   weight        U8       [out, in*3/4]  MXFP6, 4 values in 3 bytes
//   weight        U8       [out, in/2]    MXFP4, input 2k in the low half of a byte
//   weight_scale  U8       [out, in/32]   E8M0: 2^(byte - 127)
//   input_scale   F32      []             W4A8_MXFP4_FP8 with calibrated activations
// Batched experts have the blocks along the last but one dimension, as everything else.
#include "layout/formats/formats.h"

namespace quantport {
namespace {

constexpr FormatLabel kLabels[] = {{FormatId::kMxfp8, "MXFP8"},
                                   {FormatId::kMxfp6, "MXFP6"},
                                   {FormatId::kMxfp4, "MXFP4"},
                                   {FormatId::kW4A8Mxfp4Fp8, "W4A8_MXFP4_FP8"}};
constexpr uint64_t kBlock = 32;

// `bits` wide values along the stored dimension `dim`, in units of bytes.
bool FitBits(const Candidate& candidate, StoredPart* scale, size_t dim, uint64_t bits) {
  Shape& logical = candidate.weight->shape;
  logical = candidate.stored();
  if (logical[dim] * 8 % bits != 0) return false;
  logical[dim] = logical[dim] * 8 / bits;
  if (logical[dim] % kBlock != 0 || !FitGroups(scale, logical, dim, kBlock)) return false;
  Axes axes = SameDims(logical.size());
  axes[dim] = PackedAxis(dim, logical[dim], bits, 8);
  return Fit(&candidate.value(), logical, std::move(axes));
}

FormatId Fp4Variant(const Candidate& candidate) {
  const bool fp8_inputs = candidate.Find("input_scale") != nullptr || candidate.options.algorithm == "W4A8_MXFP4_FP8";
  return fp8_inputs ? FormatId::kW4A8Mxfp4Fp8 : FormatId::kMxfp4;
}

bool Recognize(const Candidate& candidate) {
  StoredPart* scale = candidate.Find("weight_scale");
  const size_t rank = candidate.stored().size();
  if (!candidate.HasOwnName() || scale == nullptr || !IsPowerScale(scale->array.dtype) || rank < 2) return false;
  for (const size_t dim : {rank - 1, rank - 2}) {
    if (IsFp8Values(candidate.dtype()) && FitBits(candidate, scale, dim, 8)) {
      candidate.weight->format = FormatId::kMxfp8;
      return true;
    }
    if (candidate.dtype() != DType::kU8) continue;
    if (FitBits(candidate, scale, dim, 4)) {
      candidate.weight->format = Fp4Variant(candidate);
      return true;
    }
    if (FitBits(candidate, scale, dim, 6)) {
      candidate.weight->format = FormatId::kMxfp6;
      return true;
    }
  }
  return false;
}

}  // namespace

const Format kMxFormat = {kLabels, Recognize};

}  // namespace quantport
