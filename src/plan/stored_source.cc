#include "plan/stored_source.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/checked.h"

namespace quantport {
namespace {

Error Refuse(const WeightUnit& unit, std::string_view why) {
  return {
      ErrorKind::kQuantConversionUnsupported,
      fmt::format("it is stored as {}{}", FormatName(unit.weight.format), why),
      {},
      unit.key,
      "dequantized are ModelOpt's FP8, MXFP8, MXFP4, NVFP4, INT4 and INT8, fine-grained FP8, compressed-tensors, GPTQ "
      "and AutoAWQ, as matrices"};
}

std::optional<uint32_t> TensorOf(const WeightUnit& unit, std::string_view leaf) {
  for (size_t i = 0; i < unit.weight.parts.size(); ++i) {
    if (unit.weight.parts[i].leaf == leaf) return unit.tensors[i];
  }
  return std::nullopt;
}

// Elements along `dim` that share a scale, from what was recognized.
uint64_t ElementsPerScale(const StoredPart& scale, size_t dim, uint64_t otherwise) {
  return dim < scale.axes.size() && scale.axes[dim] ? scale.axes[dim]->granularity : otherwise;
}

bool IsRead(FormatId format) {
  switch (format) {
    case FormatId::kFp8PerTensor:
    case FormatId::kFp8PerChannel:
    case FormatId::kFp8Block:
    case FormatId::kFp8Group:
    case FormatId::kMxfp8:
    case FormatId::kMxfp4:
    case FormatId::kMxfp4Pack:
    case FormatId::kMxfp4Blocks:
    case FormatId::kW4A8Mxfp4Fp8:
    case FormatId::kNvfp4:
    case FormatId::kNvfp4WeightOnly:
    case FormatId::kNvfp4Awq:
    case FormatId::kNvfp4Pack:
    case FormatId::kW4A8Nvfp4Fp8:
    case FormatId::kInt4:
    case FormatId::kInt8:
    case FormatId::kInt8SmoothQuant:
    case FormatId::kIntQuantized:
    case FormatId::kPackQuantized:
    case FormatId::kGptq:
    case FormatId::kAwq:
      return true;
    default:
      return false;
  }
}

// Scales that are read as the exponents they are, in whole bytes.
bool HasPowersOfTwo(FormatId format) {
  return format == FormatId::kMxfp8 || format == FormatId::kMxfp4 || format == FormatId::kMxfp4Pack ||
         format == FormatId::kMxfp4Blocks || format == FormatId::kW4A8Mxfp4Fp8;
}

// Bits of the values that a dimension packs in words; 0 where the last word is not full and several widths fit.
uint64_t PackedBits(const std::optional<Axis>& axis, uint64_t size, uint64_t words) {
  if (axis && axis->packed) return 32 * axis->multiple / axis->granularity;
  uint64_t found = 0;
  for (uint64_t bits = 1; bits <= 8; ++bits) {
    if (CeilDiv(size * bits, 32) != words) continue;
    if (found != 0) return 0;
    found = bits;
  }
  return found;
}

// What GPTQ, AutoAWQ and compressed-tensors store: integers, zero points and scales of groups of inputs.
Result<MatrixSource> IntegerSource(const WeightUnit& unit, const TensorTable& table, const StoredPart& scale,
                                   MatrixSource source) {
  const LogicalWeight& weight = unit.weight;
  const bool gptq = weight.format == FormatId::kGptq;
  source.tile_columns = ElementsPerScale(scale, 1, weight.shape[1]);
  source.tile_rows = scale.axes.empty() || !scale.axes[0] ? std::max<uint64_t>(weight.shape[0], 1) : 1;
  if (source.tile_columns == 0) return Refuse(unit, " without inputs");
  source.zeros = TensorOf(unit, gptq || weight.format == FormatId::kAwq ? "qzeros" : "weight_zero_point");
  source.group_index = TensorOf(unit, gptq ? "g_idx" : "weight_g_idx");
  if (weight.format == FormatId::kAwq) source.bits = 4;
  if (gptq || weight.format == FormatId::kPackQuantized) {
    const std::vector<uint64_t>& words = weight.parts[0].array.shape;
    source.bits = PackedBits(weight.parts[0].axes[1], weight.shape[1], gptq ? words[0] : words.back());
    if (source.bits == 0 || source.bits > 8) return Refuse(unit, " of a width that can't be told");
  }
  const DType zeros = weight.format == FormatId::kIntQuantized ? DType::kI8 : DType::kI32;
  if (source.zeros && table.tensors[*source.zeros].info.dtype != zeros)
    return Refuse(unit, fmt::format(" with zero points other than {}", DTypeName(zeros)));
  if (source.group_index && table.tensors[*source.group_index].info.dtype != DType::kI32)
    return Refuse(unit, " with a group index other than I32");
  return source;
}

uint64_t Numbers(const TensorTable& table, uint32_t tensor) {
  const TensorInfo& info = table.tensors[tensor].info;
  return (info.end - info.begin) * 8 / static_cast<uint64_t>(DTypeBits(info.dtype));
}

// Experts behind each other are read one by one, so their scales must be as well.
Result<MatrixSource> ForExperts(const WeightUnit& unit, const TensorTable& table, MatrixSource source) {
  const uint64_t rows = unit.weight.shape[1];
  const uint64_t columns = unit.weight.shape[2];
  if (rows == 0 || columns == 0) return Refuse(unit, " without elements");
  if (source.smoothing) return Refuse(unit, " with experts in one tensor and inputs scaled before");
  const uint64_t scalars = Numbers(table, source.scale_2.value_or(*source.scales));
  const bool one = unit.weight.format == FormatId::kFp8PerTensor;
  if (one || source.scale_2) {
    if (scalars != 1 && scalars != source.experts) return Refuse(unit, " with scales for parts of an expert");
    source.scalars_of_experts = scalars == source.experts;
  }
  if (one) return source;
  const uint64_t scales = CeilDiv(rows, source.tile_rows) * CeilDiv(columns, source.tile_columns);
  const bool tiled = source.tile_rows > 1 && rows % source.tile_rows != 0;
  if (tiled || Numbers(table, *source.scales) != source.experts * scales)
    return Refuse(unit, " with tiles that do not fit an expert's rows");
  return source;
}

}  // namespace

bool IsScaleType(DType dtype) {
  switch (dtype) {
    case DType::kF64:
    case DType::kF32:
    case DType::kBF16:
    case DType::kF16:
    case DType::kF8E4M3:
    case DType::kF8E5M2:
    case DType::kF8E8M0:
      return true;
    default:
      return false;
  }
}

Result<MatrixSource> StoredSource(const WeightUnit& unit, const TensorTable& table,
                                  const std::array<uint64_t, 2>& fp8_tile) {
  MatrixSource source;
  source.format = unit.weight.format;
  source.codes = unit.tensors[0];
  if (!IsRead(unit.weight.format)) return Refuse(unit, "");
  const std::vector<uint64_t>& shape = unit.weight.shape;
  if (shape.size() != 2 && shape.size() != 3) return Refuse(unit, " with more than three dimensions");
  source.scales_kept = TensorOf(unit, "weight_scale_inv").has_value();
  const bool words = unit.weight.format == FormatId::kGptq || unit.weight.format == FormatId::kAwq;
  const std::string_view scale_leaf = source.scales_kept                                      ? "weight_scale_inv"
                                      : words || unit.weight.format == FormatId::kMxfp4Blocks ? "scales"
                                                                                              : "weight_scale";
  source.scales = TensorOf(unit, scale_leaf);
  source.scale_2 =
      TensorOf(unit, unit.weight.format == FormatId::kNvfp4Pack ? "weight_global_scale" : "weight_scale_2");
  if (!source.scales) return Refuse(unit, fmt::format(" without {}", scale_leaf));
  if (source.scale_2 && table.tensors[*source.scale_2].info.dtype != DType::kF32)
    return Refuse(unit, " with a scale of scales other than F32");
  const StoredPart* scale = unit.weight.Find(scale_leaf);
  source.smoothing = TensorOf(unit, "pre_quant_scale");
  for (const auto& [leaf, tensor] :
       {std::pair(scale_leaf, source.scales), std::pair(std::string_view("pre_quant_scale"), source.smoothing)}) {
    if (!tensor) continue;
    const DType dtype = table.tensors[*tensor].info.dtype;
    const bool powers = leaf == scale_leaf && HasPowersOfTwo(unit.weight.format);
    if (powers ? dtype == DType::kU8 || dtype == DType::kF8E8M0 : IsScaleType(dtype)) continue;
    return Refuse(unit, fmt::format(" with {} of {}", leaf, DTypeName(dtype)));
  }
  source.experts = shape.size() == 3 ? shape[0] : 1;
  const size_t inputs = shape.size() - 1;
  const uint64_t rows = shape[inputs - 1];
  const uint64_t columns = shape[inputs];
  const DType values = table.tensors[source.codes].info.dtype;
  switch (unit.weight.format) {
    case FormatId::kFp8PerTensor:
      source.tile_rows = rows;
      source.tile_columns = columns;
      break;
    case FormatId::kFp8PerChannel:
      source.tile_columns = columns;
      break;
    case FormatId::kFp8Block:
      source.tile_rows = fp8_tile[0];
      source.tile_columns = fp8_tile[1];
      break;
    case FormatId::kMxfp8:
    case FormatId::kMxfp4:
    case FormatId::kMxfp4Pack:
    case FormatId::kW4A8Mxfp4Fp8:
      // Read along the last dimension, whatever that is: of batched experts it is the outputs.
      if (ElementsPerScale(*scale, inputs, 1) != 32) return Refuse(unit, " with blocks across rows");
      source.tile_columns = 32;
      break;
    case FormatId::kNvfp4:
    case FormatId::kNvfp4WeightOnly:
    case FormatId::kNvfp4Awq:
    case FormatId::kNvfp4Pack:
    case FormatId::kW4A8Nvfp4Fp8:
      if (!source.scale_2) return Refuse(unit, " without a weight_scale_2");
      // Batched experts have inputs before outputs.
      source.inputs_first = ElementsPerScale(unit.weight.parts[0], inputs, 1) == 1;
      if (source.inputs_first && shape.size() == 2) return Refuse(unit, " with the inputs before the outputs");
      if (source.inputs_first) {
        source.tile_rows = ElementsPerScale(*scale, inputs - 1, 16);
      } else {
        source.tile_columns = ElementsPerScale(*scale, inputs, 16);
      }
      break;
    case FormatId::kMxfp4Blocks:
      source.inputs_first = true;
      source.tile_rows = 32;
      break;
    case FormatId::kFp8Group:
      source.tile_columns = ElementsPerScale(*scale, inputs, columns);
      break;
    case FormatId::kGptq:
    case FormatId::kAwq:
    case FormatId::kPackQuantized:
    case FormatId::kIntQuantized:
      if (source.experts != 1) return Refuse(unit, " with experts in one tensor");
      return IntegerSource(unit, table, *scale, source);
    case FormatId::kInt4:
      source.tile_columns = ElementsPerScale(*scale, inputs, columns);
      if (source.scale_2) return Refuse(unit, " with two scales");
      break;
    case FormatId::kInt8:
    case FormatId::kInt8SmoothQuant:
      source.tile_columns = columns;
      break;
    default:
      return Refuse(unit, "");
  }
  const bool fp8 = unit.weight.format == FormatId::kFp8PerTensor || unit.weight.format == FormatId::kFp8PerChannel ||
                   unit.weight.format == FormatId::kFp8Block || unit.weight.format == FormatId::kFp8Group ||
                   unit.weight.format == FormatId::kMxfp8;
  if (fp8 && values != DType::kF8E4M3) return Refuse(unit, fmt::format(" of {}", DTypeName(values)));
  if (source.experts != 1) return ForExperts(unit, table, source);
  return source;
}

}  // namespace quantport
