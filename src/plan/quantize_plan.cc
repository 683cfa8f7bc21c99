#include "plan/quantize_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "base/text.h"
#include "format/leaves.h"
#include "plan/amax_groups.h"

namespace quantport {
namespace {

// A row is read as a whole; longer ones are no linear's.
constexpr uint64_t kMaxRowBytes = 128 << 20;

CodedWeight CodedWeightOf(const WeightUnit& unit, const TensorTable& table) {
  CodedWeight weight{unit.weight.format, unit.weight.shape, unit.weight.variant, {}};
  for (size_t i = 0; i < unit.tensors.size(); ++i) {
    const TensorInfo& info = table.tensors[unit.tensors[i]].info;
    weight.parts.push_back({unit.weight.parts[i].role, unit.tensors[i], info.dtype, info.shape, info.end - info.begin});
  }
  return weight;
}

// Which of the conversion's tensors a matrix becomes.
struct Members {
  uint32_t codes = 0;
  std::optional<uint32_t> scales = {};
  std::optional<uint32_t> scalar = {};
  std::optional<uint32_t> input_scale = {};
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
    if (auto s = CheckNames(); !s) return s.errors();
    SortByPosition();
    plan_.groups = GroupByAmax(*input_.memory, matrix_of_, &plan_.matrices);
    ChooseCasts();
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
    matrix.target.encoding = choice.encoding;
    if (!SetSource(hub, unit, &matrix)) return;
    if (choice.encoding.format == FormatId::kMxfp4Blocks && matrix.batched > 0 && !TurnOver(unit, &matrix)) return;
    if (!SetTarget(&matrix, "leave this module out of the recipe")) return;
    Consume(hub);
    Add(std::move(matrix), choice.input_amax, unit, index);
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
      CodedWeight& coded = matrix->source.coded = CodedWeightOf(unit, *input_.table);
      coded.zeros_less_one = input_.zeros_less_one && coded.format == FormatId::kGptq;
      if (const auto why = input_.why_unread(coded)) {
        Refuse(unit.key, fmt::format("it is stored as {}{}", FormatName(coded.format), *why),
               "dequantized are ModelOpt's FP8, MXFP8, MXFP4, NVFP4, INT4 and INT8, fine-grained FP8 with its FP4 "
               "experts, compressed-tensors, GPTQ and AutoAWQ, as matrices");
        return false;
      }
      matrix->dtype = input_.plain_dtype;
    }
    if (matrix->dtype != DType::kBF16 && matrix->dtype != DType::kF16 && matrix->dtype != DType::kF32) {
      Refuse(hub.name, fmt::format("its elements are {}, and not BF16, F16 or F32", DTypeName(matrix->dtype)), hint);
      return false;
    }
    matrix->bytes_before = matrix->rows * matrix->columns * static_cast<uint64_t>(DTypeBits(value.info.dtype)) / 8;
    if (unit.weight.format != FormatId::kPlain) {
      matrix->bytes_before = 0;
      for (const CodedPart& part : matrix->source.coded.parts) matrix->bytes_before += part.bytes;
    }
    return true;
  }

  // Batched experts with outputs before inputs, as the rows of gpt-oss's blocks are.
  bool TurnOver(const WeightUnit& unit, PlannedMatrix* matrix) {
    const uint64_t inputs = matrix->rows / matrix->batched;
    CodedWeight& coded = matrix->source.coded;
    if (coded.format == FormatId::kPlain) {
      Array& array = matrix->source.array;
      array = MergeDims(SwapDims(SplitDim(array, 0, inputs), 1, 2), 0);
    } else if (coded.format == FormatId::kMxfp4Blocks) {
      coded.variant.inputs_first = false;
      coded.shape = {matrix->batched, matrix->columns, inputs};
    } else {
      Refuse(unit.key, fmt::format("it is stored as {}, with inputs before outputs", FormatName(coded.format)),
             "dequantize it first");
      return false;
    }
    matrix->rows = matrix->batched * matrix->columns;
    matrix->columns = inputs;
    return true;
  }

  // What is written for the matrix. Its source is set.
  bool SetTarget(PlannedMatrix* matrix, const std::string& hint) {
    if (matrix->columns * static_cast<uint64_t>(DTypeBits(matrix->dtype)) / 8 > kMaxRowBytes) {
      Refuse(matrix->name, fmt::format("a row of it has {} elements", matrix->columns), hint);
      return false;
    }
    Target& target = matrix->target;
    target.shape = {matrix->rows, matrix->columns};
    if (matrix->batched > 0) target.shape = {matrix->batched, matrix->rows / matrix->batched, matrix->columns};
    auto variant = WrittenVariant(target.encoding, target.shape);
    if (!variant) {
      Refuse(matrix->name, variant.errors()[0].message, hint);
      return false;
    }
    target.variant = *variant;
    return true;
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

  // The tensors of one matrix, the format's parts, beside each other where its weight began. `index`: of the matrix in
  // the memory model, SIZE_MAX for none.
  void Add(PlannedMatrix matrix, std::optional<float> input_amax, const WeightUnit& unit, size_t index) {
    const StoredTensor& first = FirstTensor(matrix, unit);
    const Target& target = matrix.target;
    const float divisor = FindFormat(target.encoding.format)->input_divisor;
    Members members;
    for (const Part& part : Parts(target.encoding.format, target.shape, target.variant)) {
      const bool input = part.role == Role::kInputScale && part.leaf == leaf::kInputScale;
      if (input ? !input_amax || divisor == 0 : !part.required) continue;
      const Shape& shape = part.forms[part.written].shape;
      const bool plain = target.encoding.format == FormatId::kPlain;
      const auto number = static_cast<uint32_t>(conversion_.tensors.size());
      conversion_.tensors.push_back({LeafName(matrix, part.leaf),
                                     {plain ? matrix.dtype : part.dtypes.written(), shape, {}, {}},
                                     FormatId::kPlain,
                                     first.shard,
                                     Position(matrix, first)});
      if (part.role == Role::kValues) {
        members.codes = number;
      } else if (input) {
        members.input_scale = number;
        scalars_.push_back({number, *input_amax, divisor});
      } else if (part.role == Role::kGlobalScale || shape.empty()) {
        members.scalar = number;
      } else {
        members.scales = number;
      }
    }
    if (members.scalar) matrix.scalar.emplace();
    plan_.matrices.push_back(std::move(matrix));
    members_.push_back(members);
    matrix_of_.push_back(index);
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
    if (SetSource(hub, unit, &matrix) && SetTarget(&matrix, "")) Add(std::move(matrix), std::nullopt, unit, SIZE_MAX);
  }

  void AddCacheScale(const CacheScale& scale) {
    uint32_t shard = 0;
    uint64_t position = 0;
    for (const ConvertedTensor& tensor : conversion_.tensors) {
      if (tensor.name != scale.beside) continue;
      shard = tensor.shard;
      position = tensor.computed_at.value_or(0);
    }
    scalars_.push_back({static_cast<uint32_t>(conversion_.tensors.size()), scale.amax, 448});
    conversion_.tensors.push_back({scale.name, {DType::kF32, {}, {}, {}}, FormatId::kPlain, shard, position});
  }

  // Disks read front to back best.
  void SortByPosition() {
    std::vector<size_t> order(plan_.matrices.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    const auto key = [&](size_t i) {
      const PlannedMatrix& matrix = plan_.matrices[i];
      const auto& blocks = matrix.source.array.blocks;
      const auto& parts = matrix.source.coded.parts;
      const uint32_t index = !blocks.empty() && blocks[0].tensor != kZeros ? blocks[0].tensor
                             : parts.empty()                               ? 0
                                                                           : parts[0].tensor;
      const StoredTensor& tensor = input_.table->tensors[index];
      return std::pair(tensor.shard, Position(matrix, tensor));
    };
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return key(a) < key(b); });
    std::vector<PlannedMatrix> sorted;
    std::vector<Members> members;
    std::vector<size_t> matrix_of;
    for (const size_t i : order) {
      sorted.push_back(std::move(plan_.matrices[i]));
      members.push_back(members_[i]);
      matrix_of.push_back(matrix_of_[i]);
    }
    plan_.matrices = std::move(sorted);
    members_ = std::move(members);
    matrix_of_ = std::move(matrix_of);
  }

  // A scale of scales that a group shares is a power of two only where all of the group is stored with powers of two.
  void ChooseCasts() {
    std::vector<bool> cast(plan_.groups, true);
    for (const PlannedMatrix& matrix : plan_.matrices) {
      if (matrix.group && !CanCast(matrix.source.coded, matrix.target)) cast[*matrix.group] = false;
    }
    for (PlannedMatrix& matrix : plan_.matrices) {
      if (!matrix.group || !cast[*matrix.group]) continue;
      matrix.target.encoding.cast = true;
      matrix.dtype = DType::kBF16;  // holds every such number as it is, which F16 does not
    }
  }

  // Each name once, whatever it was made from.
  Status CheckNames() const {
    std::unordered_set<std::string_view> names;
    for (const ConvertedTensor& tensor : conversion_.tensors) {
      if (names.insert(tensor.name).second) continue;
      return Error{ErrorKind::kNameCollision, "two tensors of the result would have this name", {}, tensor.name, {}};
    }
    return {};
  }

  // Where MakePlan put everything.
  QuantizePlan Locate() {
    struct Located {
      OutputPlace place;
      uint64_t bytes = 0;
    };
    std::vector<Located> at(conversion_.tensors.size());
    for (uint32_t f = 0; f < plan_.files.files.size(); ++f) {
      const PlannedFile& file = plan_.files.files[f];
      for (const PlannedTensor& tensor : file.tensors)
        at[tensor.converted] = {{f, file.header.size() + tensor.info.begin}, tensor.info.end - tensor.info.begin};
    }
    for (size_t m = 0; m < plan_.matrices.size(); ++m) {
      PlannedMatrix& matrix = plan_.matrices[m];
      const Members& members = members_[m];
      matrix.codes = at[members.codes].place;
      if (members.scales) matrix.scales = at[*members.scales].place;
      if (members.scalar) matrix.scalar = at[*members.scalar].place;
      matrix.bytes_after = at[members.codes].bytes;
      for (const auto& other : {members.scales, members.scalar, members.input_scale})
        matrix.bytes_after += other ? at[*other].bytes : 0;
    }
    for (const Scalar& scalar : scalars_)
      plan_.scalars.push_back({at[scalar.converted].place, scalar.amax, scalar.divisor});
    return std::move(plan_);
  }

  // A scale from calibration alone.
  struct Scalar {
    uint32_t converted;
    float amax;
    float divisor;
  };

  const QuantizeInput& input_;
  const std::filesystem::path& directory_;
  const PlanOptions& options_;
  std::vector<bool> consumed_;  // units
  std::unordered_map<uint32_t, size_t> unit_of_tensor_;
  Conversion conversion_;
  std::vector<Members> members_;   // of each planned matrix
  std::vector<size_t> matrix_of_;  // and its index in the memory model; SIZE_MAX for none
  std::vector<Scalar> scalars_;
  QuantizePlan plan_;
  Errors errors_;
};

}  // namespace

std::string LeafName(const PlannedMatrix& matrix, std::string_view leaf) {
  if (matrix.batched == 0) return JoinName(matrix.name, leaf);
  return leaf == leaf::kWeight ? matrix.name : fmt::format("{}_{}", matrix.name, leaf);
}

std::string ValueName(const PlannedMatrix& matrix) { return LeafName(matrix, leaf::kWeight); }

Result<QuantizePlan> MakeQuantizePlan(const QuantizeInput& input, const std::filesystem::path& directory,
                                      const PlanOptions& options) {
  return QuantizePlanner(input, directory, options).Make();
}

}  // namespace quantport
