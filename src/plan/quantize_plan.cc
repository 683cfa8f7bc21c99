#include "plan/quantize_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <unordered_map>

#include "base/checked.h"
#include "base/text.h"
#include "plan/amax_groups.h"
#include "plan/stored_source.h"

namespace quantport {
namespace {

// A row is read as a whole; longer ones are no linear's.
constexpr uint64_t kMaxRowBytes = 128 << 20;

struct Shapes {
  DType codes_dtype = DType::kU8;
  std::vector<uint64_t> codes;
  DType scales_dtype = DType::kF32;
  std::optional<std::vector<uint64_t>> scales;  // several
  std::string scalar;                           // leaf of the one scale, "" for none
  float input_divisor = 0;
};

class QuantizePlanner {
 public:
  QuantizePlanner(const QuantizeInput& input, const std::filesystem::path& directory, const PlanOptions& options)
      : input_(input), directory_(directory), options_(options) {}

  Result<QuantizePlan> Make() {
    consumed_.assign(input_.units->size(), false);
    for (size_t m = 0; m < input_.choices.size(); ++m) {
      if (input_.choices[m]) AddMatrix(m);
    }
    for (size_t u = 0; u < input_.units->size(); ++u) {
      if (!consumed_[u]) KeepUnit((*input_.units)[u]);
    }
    for (const CacheScale& scale : input_.cache_scales) AddCacheScale(scale);
    if (!errors_.empty()) return std::move(errors_);
    SortByPosition();
    plan_.groups = GroupByAmax(*input_.memory, matrix_of_, &plan_.matrices);
    auto files = MakePlan(conversion_, *input_.table, directory_, options_);
    if (!files) return files.errors();
    plan_.files = std::move(*files);
    return Locate();
  }

 private:
  void Refuse(const std::string& name, std::string message, std::string hint) {
    errors_.push_back({ErrorKind::kQuantConversionUnsupported, std::move(message), {}, name, std::move(hint)});
  }

  void AddMatrix(size_t index) {
    const HubMatrix& hub = input_.memory->matrices[index];
    const MatrixChoice& choice = *input_.choices[index];
    const WeightUnit& unit = (*input_.units)[hub.unit];
    PlannedMatrix matrix;
    matrix.name = hub.name;
    matrix.in_memory = input_.memory->modules[hub.places[0].module].module.name;
    matrix.format = choice.format;
    if (!SetSource(hub, unit, &matrix)) return;
    const std::string hint = "leave this module out of the recipe";
    auto shapes = ShapesOf(&matrix);
    if (!shapes.ok()) return Refuse(hub.name, shapes.errors()[0].message, hint);
    Consume(hub);
    Add(matrix, *shapes, choice.input_amax, unit);
    plan_.matrices.push_back(std::move(matrix));
    matrix_of_.push_back(index);
  }

  bool SetSource(const HubMatrix& hub, const WeightUnit& unit, PlannedMatrix* matrix) {
    const StoredTensor& value = input_.table->tensors[unit.tensors[0]];
    const std::string hint = "dequantize it with the tool that wrote it, or leave this module out of the recipe";
    if (hub.shape.size() != 2) {
      Refuse(hub.name, fmt::format("it has {} dimensions, and a linear has two", hub.shape.size()), hint);
      return false;
    }
    matrix->rows = hub.shape[0];
    matrix->columns = hub.shape[1];
    matrix->batched = hub.batched;
    if (unit.weight.format == FormatId::kPlain) {
      matrix->dtype = value.info.dtype;
      matrix->source.array = hub.whole ? WholeTensor(unit.tensors[0], value.info.dtype, hub.shape) : hub.array;
    } else {
      auto source = StoredSource(unit, *input_.table, input_.fp8_tile);
      if (source) source->zeros_less_one = input_.zeros_less_one && unit.weight.format == FormatId::kGptq;
      if (!source) {
        errors_.insert(errors_.end(), source.errors().begin(), source.errors().end());
        return false;
      }
      matrix->source = std::move(*source);
      matrix->dtype = input_.plain_dtype;
    }
    if (matrix->dtype != DType::kBF16 && matrix->dtype != DType::kF16 && matrix->dtype != DType::kF32) {
      Refuse(hub.name, fmt::format("its elements are {}, and not BF16, F16 or F32", DTypeName(matrix->dtype)), hint);
      return false;
    }
    matrix->bytes_before = matrix->rows * matrix->columns * static_cast<uint64_t>(DTypeBits(value.info.dtype)) / 8;
    if (unit.weight.format != FormatId::kPlain) {
      matrix->bytes_before = 0;
      for (const uint32_t tensor : unit.tensors)
        matrix->bytes_before += input_.table->tensors[tensor].info.end - input_.table->tensors[tensor].info.begin;
    }
    return true;
  }

  Status ExpectMultiple(uint64_t size, uint64_t of, std::string_view what) const {
    if (of != 0 && size % of == 0) return {};
    return Error{ErrorKind::kQuantConversionUnsupported,
                 fmt::format("its {} {} are no multiple of {}, as the format needs", size, what, of),
                 {},
                 {},
                 {}};
  }

  Result<Shapes> ShapesOf(PlannedMatrix* matrix) const {
    const uint64_t rows = matrix->rows;
    const uint64_t columns = matrix->columns;
    const uint64_t block = matrix->format.block;
    if (columns * static_cast<uint64_t>(DTypeBits(matrix->dtype)) / 8 > kMaxRowBytes) {
      return Error{
          ErrorKind::kQuantConversionUnsupported, fmt::format("a row of it has {} elements", columns), {}, {}, {}};
    }
    if (matrix->batched > 0) return BatchedShapes(*matrix);
    switch (matrix->format.format) {
      case FormatId::kPlain:
        return Shapes{matrix->dtype, {rows, columns}, DType::kF32, std::nullopt, "", 0};
      case FormatId::kFp8PerTensor:
        return Shapes{DType::kF8E4M3, {rows, columns}, DType::kF32, std::nullopt, "weight_scale", 448};
      case FormatId::kFp8PerChannel:
        return Shapes{DType::kF8E4M3, {rows, columns}, DType::kF32, std::vector<uint64_t>{rows}, "", 0};
      case FormatId::kFp8Block: {
        const std::vector<uint64_t> tiles = {CeilDiv(rows, block), 1, CeilDiv(columns, block), 1};
        // As ModelOpt has it: a single tile of a linear by itself is a scale without dimensions.
        matrix->scalar_scale = tiles[0] == 1 && tiles[2] == 1;
        if (matrix->scalar_scale && matrix->format.search != ScaleSearch::kNone)
          return Unknown("a single tile whose scale is searched for");
        if (matrix->scalar_scale)
          return Shapes{DType::kF8E4M3, {rows, columns}, DType::kF32, std::nullopt, "weight_scale", 0};
        return Shapes{DType::kF8E4M3, {rows, columns}, DType::kF32, tiles, "", 0};
      }
      case FormatId::kMxfp8:
        if (auto s = ExpectMultiple(columns, 32, "inputs"); !s) return s.errors();
        return Shapes{DType::kF8E4M3, {rows, columns}, DType::kU8, std::vector<uint64_t>{rows, columns / 32}, "", 0};
      case FormatId::kMxfp4:
      case FormatId::kW4A8Mxfp4Fp8:
        if (auto s = ExpectMultiple(columns, 32, "inputs"); !s) return s.errors();
        return Shapes{DType::kU8, {rows, columns / 2}, DType::kU8, std::vector<uint64_t>{rows, columns / 32}, "", 448};
      case FormatId::kNvfp4:
      case FormatId::kNvfp4WeightOnly:
      case FormatId::kW4A8Nvfp4Fp8:
        if (block != 16 && block != 32) return Unknown(fmt::format("NVFP4 in blocks of {}", block));
        if (auto s = ExpectMultiple(columns, block, "inputs"); !s) return s.errors();
        return Shapes{DType::kU8,       {rows, columns / 2},
                      DType::kF8E4M3,   std::vector<uint64_t>{rows, columns / block},
                      "weight_scale_2", matrix->format.format == FormatId::kW4A8Nvfp4Fp8 ? 448.0f : 2688.0f};
      case FormatId::kInt8SmoothQuant:
      case FormatId::kInt8:
        return Shapes{DType::kI8, {rows, columns}, DType::kF32, std::vector<uint64_t>{rows}, "", 127};
      case FormatId::kInt4:
        if (auto s = ExpectMultiple(columns, block, "inputs"); !s) return s.errors();
        if (auto s = ExpectMultiple(rows, 2, "outputs"); !s) return s.errors();
        return Shapes{DType::kU8, {rows / 2, columns}, DType::kF32, std::vector<uint64_t>{rows, columns / block}, "",
                      0};
      default:
        break;
    }
    return Unknown(std::string(RecipeFormatName(matrix->format.format)));
  }

  // Experts with inputs before outputs. ModelOpt turns NVFP4 over, so that blocks and bytes run along the inputs; of
  // all else blocks run along the last dimension, the outputs.
  Result<Shapes> BatchedShapes(const PlannedMatrix& matrix) const {
    const uint64_t experts = matrix.batched;
    const uint64_t inputs = matrix.rows / experts;
    const uint64_t outputs = matrix.columns;
    const uint64_t block = matrix.format.block;
    const std::vector<uint64_t> whole = {experts, inputs, outputs};
    const auto groups = [&](uint64_t size) { return std::vector<uint64_t>{experts, inputs, outputs / size}; };
    switch (matrix.format.format) {
      case FormatId::kPlain:
        return Shapes{matrix.dtype, whole, DType::kF32, std::nullopt, "", 0};
      case FormatId::kFp8PerTensor:
        return Shapes{DType::kF8E4M3, whole, DType::kF32, std::nullopt, "weight_scale", 448};
      case FormatId::kMxfp8:
        if (auto s = ExpectMultiple(outputs, 32, "outputs"); !s) return s.errors();
        return Shapes{DType::kF8E4M3, whole, DType::kU8, groups(32), "", 0};
      case FormatId::kMxfp4:
      case FormatId::kW4A8Mxfp4Fp8:
        if (auto s = ExpectMultiple(outputs, 32, "outputs"); !s) return s.errors();
        return Shapes{DType::kU8, groups(2), DType::kU8, groups(32), "", 448};
      case FormatId::kW4A8Nvfp4Fp8:
        if (block != 16 && block != 32) return Unknown(fmt::format("NVFP4 in blocks of {}", block));
        if (auto s = ExpectMultiple(outputs, block, "outputs"); !s) return s.errors();
        return Shapes{DType::kU8, groups(2), DType::kF8E4M3, groups(block), "weight_scale_2", 448};
      case FormatId::kNvfp4:
      case FormatId::kNvfp4WeightOnly:
        if (block != 16 && block != 32) return Unknown(fmt::format("NVFP4 in blocks of {}", block));
        if (auto s = ExpectMultiple(inputs, block, "inputs"); !s) return s.errors();
        return Shapes{DType::kU8,       {experts, inputs / 2, outputs},
                      DType::kF8E4M3,   std::vector<uint64_t>{experts, inputs / block, outputs},
                      "weight_scale_2", 2688};
      default:
        return Unknown(fmt::format("{} of experts that are kept in one tensor with inputs before outputs",
                                   RecipeFormatName(matrix.format.format)));
    }
  }

  static Error Unknown(const std::string& what) {
    return {ErrorKind::kQuantConversionUnsupported, what + " can't be written", {}, {}, {}};
  }

  void Consume(const HubMatrix& hub) {
    consumed_[hub.unit] = true;
    if (hub.whole) return;
    for (const Block& block : hub.array.blocks) {
      if (block.tensor == kZeros) continue;
      if (unit_of_tensor_.empty()) {
        for (size_t u = 0; u < input_.units->size(); ++u) unit_of_tensor_.emplace((*input_.units)[u].tensors[0], u);
      }
      consumed_[unit_of_tensor_.at(block.tensor)] = true;
    }
  }

  // The tensors of one matrix, beside each other where its weight began.
  void Add(const PlannedMatrix& matrix, const Shapes& shapes, std::optional<float> input_amax, const WeightUnit& unit) {
    const StoredTensor& first = FirstTensor(matrix, unit);
    const auto add = [&](const std::string& leaf, DType dtype, std::vector<uint64_t> shape) {
      conversion_.tensors.push_back({LeafName(matrix, leaf),
                                     {dtype, std::move(shape), {}, {}},
                                     FormatId::kPlain,
                                     first.shard,
                                     Position(matrix, first)});
    };
    add("weight", shapes.codes_dtype, shapes.codes);
    if (shapes.scales) add("weight_scale", shapes.scales_dtype, *shapes.scales);
    if (!shapes.scalar.empty()) add(shapes.scalar, DType::kF32, {});
    if (input_amax && shapes.input_divisor != 0) {
      add("input_scale", DType::kF32, {});
      scalars_.push_back({LeafName(matrix, "input_scale"), *input_amax, shapes.input_divisor});
    }
  }

  const StoredTensor& FirstTensor(const PlannedMatrix& matrix, const WeightUnit& unit) const {
    const auto& blocks = matrix.source.array.blocks;
    return input_.table->tensors[blocks.empty() || blocks[0].tensor == kZeros ? unit.tensors[0] : blocks[0].tensor];
  }

  static uint64_t Position(const PlannedMatrix& matrix, const StoredTensor& first) {
    const auto& blocks = matrix.source.array.blocks;
    return first.info.begin + (blocks.empty() ? 0 : blocks[0].offset / 8);
  }

  void KeepUnit(const WeightUnit& unit) {
    const bool plain = unit.weight.format == FormatId::kPlain || unit.weight.format == FormatId::kUnrecognized;
    if (input_.dequantize_rest && !plain && unit.role == UnitRole::kValue) return Dequantize(unit);
    for (const uint32_t index : unit.tensors) {
      const StoredTensor& tensor = input_.table->tensors[index];
      conversion_.tensors.push_back({tensor.info.name, WholeTensor(index, tensor.info.dtype, tensor.info.shape),
                                     unit.weight.format, tensor.shard});
    }
  }

  void Dequantize(const WeightUnit& unit) {
    HubMatrix hub;
    hub.name = std::string(SplitLeaf(unit.key).module);
    hub.shape = unit.weight.shape;
    if (hub.shape.size() == 3 && hub.shape[0] > 0 && hub.shape[0] <= UINT64_MAX / std::max<uint64_t>(hub.shape[1], 1)) {
      hub.name = unit.key;
      hub.batched = hub.shape[0];
      hub.shape = {hub.shape[0] * hub.shape[1], hub.shape[2]};
    }
    PlannedMatrix matrix;
    matrix.name = hub.name;
    if (!SetSource(hub, unit, &matrix)) return;
    auto shapes = ShapesOf(&matrix);
    if (!shapes) return Refuse(hub.name, shapes.errors()[0].message, "");
    Add(matrix, *shapes, std::nullopt, unit);
    plan_.matrices.push_back(std::move(matrix));
    matrix_of_.push_back(SIZE_MAX);
  }

  void AddCacheScale(const CacheScale& scale) {
    uint32_t shard = 0;
    uint64_t position = 0;
    for (const ConvertedTensor& tensor : conversion_.tensors) {
      if (tensor.name != scale.beside) continue;
      shard = tensor.shard;
      position = tensor.computed_at.value_or(0);
    }
    conversion_.tensors.push_back({scale.name, {DType::kF32, {}, {}, {}}, FormatId::kPlain, shard, position});
    scalars_.push_back({scale.name, scale.amax, 448});
  }

  // Disks read front to back best.
  void SortByPosition() {
    std::vector<size_t> order(plan_.matrices.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    const auto key = [&](size_t i) {
      const PlannedMatrix& matrix = plan_.matrices[i];
      const auto& blocks = matrix.source.array.blocks;
      const uint32_t index = blocks.empty() || blocks[0].tensor == kZeros ? matrix.source.codes : blocks[0].tensor;
      const StoredTensor& tensor = input_.table->tensors[index];
      return std::pair(tensor.shard, Position(matrix, tensor));
    };
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return key(a) < key(b); });
    std::vector<PlannedMatrix> sorted;
    std::vector<size_t> matrix_of;
    for (const size_t i : order) {
      sorted.push_back(std::move(plan_.matrices[i]));
      matrix_of.push_back(matrix_of_[i]);
    }
    plan_.matrices = std::move(sorted);
    matrix_of_ = std::move(matrix_of);
  }

  // Where MakePlan put everything.
  Result<QuantizePlan> Locate() {
    std::unordered_map<std::string_view, std::pair<OutputPlace, uint64_t>> places;
    for (uint32_t f = 0; f < plan_.files.files.size(); ++f) {
      const PlannedFile& file = plan_.files.files[f];
      for (const PlannedTensor& tensor : file.tensors) {
        const bool fresh =
            places
                .emplace(tensor.info.name, std::pair(OutputPlace{f, file.header.size() + tensor.info.begin},
                                                     tensor.info.end - tensor.info.begin))
                .second;
        if (!fresh) {
          return Error{
              ErrorKind::kNameCollision, "two tensors of the result would have this name", {}, tensor.info.name, {}};
        }
      }
    }
    for (PlannedMatrix& matrix : plan_.matrices) {
      const auto at = [&](std::string_view leaf) {
        const auto found = places.find(LeafName(matrix, leaf));
        if (found == places.end()) return std::optional<OutputPlace>();
        matrix.bytes_after += found->second.second;
        return std::optional(found->second.first);
      };
      matrix.codes = at("weight");
      const auto scale = at("weight_scale");
      const bool single = matrix.format.format == FormatId::kFp8PerTensor || matrix.scalar_scale;
      if (scale && single) matrix.scalar = scale;
      if (scale && !single) matrix.scales = scale;
      if (const auto scale_2 = at("weight_scale_2")) matrix.scalar = scale_2;
      (void)at("input_scale");
    }
    for (const Scalar& scalar : scalars_)
      plan_.scalars.push_back({places.at(scalar.name).first, scalar.amax, scalar.divisor});
    return std::move(plan_);
  }

  struct Scalar {
    std::string name;
    float amax;
    float divisor;
  };

  const QuantizeInput& input_;
  const std::filesystem::path& directory_;
  const PlanOptions& options_;
  std::vector<bool> consumed_;  // units
  std::unordered_map<uint32_t, size_t> unit_of_tensor_;
  Conversion conversion_;
  std::vector<size_t> matrix_of_;  // of each planned matrix, in the memory model; SIZE_MAX for none
  std::vector<Scalar> scalars_;
  QuantizePlan plan_;
  Errors errors_;
};

}  // namespace

std::string LeafName(const PlannedMatrix& matrix, std::string_view leaf) {
  if (matrix.batched == 0) return JoinName(matrix.name, leaf);
  return leaf == "weight" ? matrix.name : fmt::format("{}_{}", matrix.name, leaf);
}

Result<QuantizePlan> MakeQuantizePlan(const QuantizeInput& input, const std::filesystem::path& directory,
                                      const PlanOptions& options) {
  return QuantizePlanner(input, directory, options).Make();
}

}  // namespace quantport
