// compressed-tensors' packed formats (https://github.com/vllm-project/compressed-tensors, compressors/):
//   pack-quantized: b-bit integers, a row being one stream of bits in 32-bit words
//     weight_packed      I32  [out, cdiv(in*b, 32)]
//     weight_scale       any  [out, in/g], [out, 1] or [1]
//     weight_zero_point  I32  [cdiv(out*b, 32), in/g]   packed along the output
//     weight_g_idx       I32  [in]                      the group of each input, with activation order
//     weight_shape       I64  [2] = out, in
//   nvfp4-pack-quantized
//     weight_packed  U8 [out, in/2], weight_scale F8_E4M3 [out, in/16], weight_global_scale and input_global_scale
//     F32 [1], by which to divide
//   mxfp4-pack-quantized
//     weight_packed  U8 [out, in/2], weight_scale U8 [out, in/32]
// Its other formats keep the leaf "weight" and are stored as FP8, INT8 and MXFP8 are elsewhere.
#include <cstring>

#include "base/checked.h"
#include "layout/formats/formats.h"

namespace quantport {
namespace {

constexpr FormatLabel kLabels[] = {{FormatId::kPackQuantized, "pack-quantized"},
                                   {FormatId::kNvfp4Pack, "nvfp4-pack-quantized"},
                                   {FormatId::kMxfp4Pack, "mxfp4-pack-quantized"}};

bool FitFp4(const Candidate& candidate, StoredPart* scale) {
  Shape& logical = candidate.weight->shape;
  logical = candidate.stored();
  logical.back() *= 2;
  const bool nvfp4 = scale->array.dtype == DType::kF8E4M3;
  if (!nvfp4 && !IsPowerScale(scale->array.dtype)) return false;
  const uint64_t block = nvfp4 ? 16 : 32;
  if (logical.back() % block != 0 || !FitGroups(scale, logical, logical.size() - 1, block)) return false;
  Axes axes = SameDims(logical.size());
  axes.back()->granularity = 2;
  candidate.weight->format = nvfp4 ? FormatId::kNvfp4Pack : FormatId::kMxfp4Pack;
  return Fit(&candidate.value(), logical, std::move(axes));
}

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
std::optional<uint64_t> StatedInputs(const Candidate& candidate, const StoredPart& stated) {
  const auto bytes = candidate.Read(stated);
  const size_t width = stated.array.dtype == DType::kI64 ? 8 : 4;
  if (!bytes || bytes->size() < 2 * width) return std::nullopt;
  uint64_t sizes[2] = {0, 0};
  for (size_t i = 0; i < 2; ++i) std::memcpy(&sizes[i], bytes->data() + i * width, width);
  const Shape& words = candidate.stored();
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
std::optional<Packing> FindPacking(const Candidate& candidate, const StoredPart* stated) {
  const Shape& words = candidate.stored();
  const uint64_t columns = words.back();
  if (const auto inputs = stated == nullptr ? std::nullopt : StatedInputs(candidate, *stated)) {
    // Rows of less than 32 values may fit several widths; the config's is then as good as any.
    if (candidate.options.bits > 0 && candidate.options.bits <= 8 &&
        CeilDiv(*inputs * candidate.options.bits, 32) == columns)
      return Packing{*inputs, candidate.options.bits};
    for (uint64_t bits = 1; bits <= 8; ++bits) {
      if (CeilDiv(*inputs * bits, 32) == columns) return Packing{*inputs, bits};
    }
    return std::nullopt;
  }
  const uint64_t bits = candidate.options.bits;
  if (bits == 0 || bits > 8 || columns * 32 % bits != 0) return std::nullopt;
  return Packing{columns * 32 / bits, bits};
}

bool FitStatedShape(StoredPart* stated, const Shape& logical) {
  Axes axes(logical.size());
  if (logical.size() == 3) axes[0] = Axis{0, 1};
  if (logical.size() > 3 || stated->array.shape.empty() || stated->array.shape.back() != 2 ||
      stated->array.shape.size() + 1 != logical.size() || !FitLoosely(stated, logical, std::move(axes)))
    return false;
  stated->restate = stated->array.dtype == DType::kI64 ? ShapeBytes<int64_t> : ShapeBytes<int32_t>;
  return stated->array.dtype == DType::kI64 || stated->array.dtype == DType::kI32;
}

bool FitScale(const Candidate& candidate, StoredPart* scale) {
  const Shape& logical = candidate.weight->shape;
  return FitScalar(scale, logical) || FitRows(scale, logical) || FitAnyGroups(scale, logical, candidate.options);
}

bool FitZeroPoints(StoredPart* zeros, const StoredPart& scale, const Shape& logical, uint64_t bits) {
  Axes axes = scale.axes;
  auto& rows = axes[logical.size() - 2];
  if (rows) rows = PackedAxis(rows->dim, logical[logical.size() - 2], bits, 32);
  return Fit(zeros, logical, std::move(axes));
}

bool FitGroupIndex(StoredPart* index, const Shape& logical) {
  Axes axes(logical.size());
  axes.back() = WholeAxis(0, logical.back(), logical.back(), "the groups of inputs are numbered through");
  return Fit(index, logical, std::move(axes));
}

bool FitPacked(const Candidate& candidate, StoredPart* scale) {
  StoredPart* stated = candidate.Find("weight_shape");
  const auto packing = FindPacking(candidate, stated);
  if (!packing) return false;
  Shape& logical = candidate.weight->shape;
  logical = candidate.stored();
  logical.back() = packing->inputs;
  Axes axes = SameDims(logical.size());
  axes.back() = PackedAxis(logical.size() - 1, packing->inputs, packing->bits, 32);
  candidate.weight->format = FormatId::kPackQuantized;
  if (!Fit(&candidate.value(), logical, std::move(axes)) || !FitScale(candidate, scale)) return false;
  StoredPart* zeros = candidate.Find("weight_zero_point");
  StoredPart* index = candidate.Find("weight_g_idx");
  return (zeros == nullptr || FitZeroPoints(zeros, *scale, logical, packing->bits)) &&
         (index == nullptr || FitGroupIndex(index, logical)) && (stated == nullptr || FitStatedShape(stated, logical));
}

bool Recognize(const Candidate& candidate) {
  StoredPart* scale = candidate.Find("weight_scale");
  if (candidate.value().leaf != "weight_packed" || scale == nullptr || candidate.stored().size() < 2) return false;
  if (candidate.dtype() == DType::kU8) return FitFp4(candidate, scale);
  return candidate.dtype() == DType::kI32 && FitPacked(candidate, scale);
}

std::optional<std::string> Missing(const LogicalWeight& weight) {
  if (weight.parts[0].leaf != "weight_packed") return std::nullopt;
  const StoredPart* scale = weight.Find("weight_scale");
  if (scale == nullptr) return "weight_scale is missing beside weight_packed";
  if (weight.parts[0].array.dtype == DType::kU8 && scale->array.dtype == DType::kF8E4M3 &&
      weight.Find("weight_global_scale") == nullptr)
    return "weight_global_scale is missing: NVFP4 block scales are relative to it";
  return std::nullopt;
}

}  // namespace

const Format kCompressedTensorsFormat = {kLabels, Recognize, Missing};

}  // namespace quantport
