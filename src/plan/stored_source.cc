#include "plan/stored_source.h"

#include <fmt/format.h>

namespace quantport {
namespace {

Error Refuse(const WeightUnit& unit, std::string_view why) {
  return {ErrorKind::kQuantConversionUnsupported,
          fmt::format("it is stored as {}{}", LayoutName(unit.weight.layout), why),
          {},
          unit.key,
          "dequantized are ModelOpt's FP8, MXFP8, MXFP4, NVFP4, INT4 and INT8 and fine-grained FP8, as matrices"};
}

std::optional<uint32_t> TensorOf(const WeightUnit& unit, std::string_view leaf) {
  for (size_t i = 0; i < unit.weight.parts.size(); ++i) {
    if (unit.weight.parts[i].leaf == leaf) return unit.tensors[i];
  }
  return std::nullopt;
}

// Elements along `dim` that share a scale, from what was recognized.
uint64_t Granularity(const StoredPart& scale, size_t dim, uint64_t otherwise) {
  return dim < scale.axes.size() && scale.axes[dim] ? scale.axes[dim]->granularity : otherwise;
}

}  // namespace

Result<MatrixSource> StoredSource(const WeightUnit& unit, const TensorTable& table,
                                  const std::array<uint64_t, 2>& fp8_tile) {
  MatrixSource source;
  source.layout = unit.weight.layout;
  source.codes = unit.tensors[0];
  if (unit.weight.shape.size() != 2) return Refuse(unit, " with more than two dimensions");
  if (TensorOf(unit, "pre_quant_scale")) return Refuse(unit, " with inputs scaled before");
  source.scales_kept = TensorOf(unit, "weight_scale_inv").has_value();
  source.scales = source.scales_kept ? TensorOf(unit, "weight_scale_inv") : TensorOf(unit, "weight_scale");
  source.scale_2 = TensorOf(unit, "weight_scale_2");
  if (!source.scales) return Refuse(unit, " without a weight_scale");
  const StoredPart* scale = unit.weight.Find(source.scales_kept ? "weight_scale_inv" : "weight_scale");
  source.scale_dtype = table.tensors[*source.scales].info.dtype;
  const uint64_t rows = unit.weight.shape[0];
  const uint64_t columns = unit.weight.shape[1];
  const DType values = table.tensors[source.codes].info.dtype;
  switch (unit.weight.layout) {
    case Layout::kFp8PerTensor:
      source.tile_rows = rows;
      source.tile_columns = columns;
      break;
    case Layout::kFp8PerChannel:
      source.tile_columns = columns;
      break;
    case Layout::kFp8Block:
      source.tile_rows = fp8_tile[0];
      source.tile_columns = fp8_tile[1];
      break;
    case Layout::kMxfp8:
    case Layout::kMxfp4:
    case Layout::kW4A8Mxfp4Fp8:
      source.tile_columns = 32;
      break;
    case Layout::kNvfp4:
    case Layout::kNvfp4WeightOnly:
    case Layout::kW4A8Nvfp4Fp8:
      source.tile_columns = Granularity(*scale, 1, 16);
      if (!source.scale_2) return Refuse(unit, " without a weight_scale_2");
      // Batched experts have inputs before outputs.
      if (unit.weight.parts[0].axes.size() == 2 && unit.weight.parts[0].axes[0]->dim != 0)
        return Refuse(unit, " with the inputs before the outputs");
      break;
    case Layout::kInt4:
      source.tile_columns = Granularity(*scale, 1, columns);
      if (source.scale_2) return Refuse(unit, " with two scales");
      break;
    case Layout::kInt8:
    case Layout::kInt8SmoothQuant:
      source.tile_columns = columns;
      break;
    default:
      return Refuse(unit, "");
  }
  const bool fp8 = unit.weight.layout == Layout::kFp8PerTensor || unit.weight.layout == Layout::kFp8PerChannel ||
                   unit.weight.layout == Layout::kFp8Block || unit.weight.layout == Layout::kMxfp8;
  if (fp8 && values != DType::kF8E4M3) return Refuse(unit, fmt::format(" of {}", DTypeName(values)));
  return source;
}

}  // namespace quantport
