// Conversion: checkpoints, mappings and configs put together from the input's bytes. Whatever is planned reads inside
// the tensors it names and gives every element of the result exactly once.
#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "check.h"
#include "choices.h"
#include "plan/conversion.h"
#include "plan/plan.h"

namespace quantport {
namespace {

using fuzz::Check;
using fuzz::Choices;

constexpr uint64_t kHuge = uint64_t{1} << 63;
// Sizes that formats have in common, odd ones, and those that overflow where a product or a factor is not checked.
constexpr std::array<uint64_t, 24> kSizes = {
    0,     1,        2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 48, 64, 96, 97, 128, 160, 192, 256, 1u << 20, uint64_t{1} << 40,
    kHuge, kHuge + 8};
constexpr std::array<DType, 12> kDTypes = {DType::kU8,     DType::kI8,     DType::kI32, DType::kI64,
                                           DType::kF8E4M3, DType::kF8E5M2, DType::kF16, DType::kF32,
                                           DType::kBF16,   DType::kF8E8M0, DType::kF4,  DType::kF64};
constexpr std::array<std::string_view, 10> kModules = {"l.0.a",  "l.0.b",  "l.0.c",  "l.1.a",          "e.0.w1",
                                                       "e.1.w1", "e.0.w2", "e.1.w2", "e.gate_up_proj", "q_proj"};
constexpr std::array<std::string_view, 34> kLeaves = {".weight",
                                                      "",
                                                      ".bias",
                                                      ".weight_scale",
                                                      ".weight_scale_2",
                                                      ".weight_scale_inv",
                                                      ".input_scale",
                                                      ".pre_quant_scale",
                                                      ".weight_packed",
                                                      ".weight_shape",
                                                      ".weight_zero_point",
                                                      ".weight_g_idx",
                                                      ".weight_global_scale",
                                                      ".input_global_scale",
                                                      ".qweight",
                                                      ".qzeros",
                                                      ".scales",
                                                      ".g_idx",
                                                      ".SCB",
                                                      ".weight_format",
                                                      ".weight.absmax",
                                                      ".weight.quant_map",
                                                      ".weight.nested_absmax",
                                                      ".weight.quant_state.bitsandbytes__nf4",
                                                      ".svdquant_lora_a",
                                                      ".svdquant_lora_b",
                                                      "_weight_scale",
                                                      "_weight_scale_2",
                                                      "_scale_inv",
                                                      "_input_scale",
                                                      "_blocks",
                                                      "_scales",
                                                      "_bias",
                                                      ".k_scale"};
constexpr std::array<std::string_view, 16> kPatterns = {
    "l.0.a.weight",  "l.*.a.weight",   "a.weight",    "b.weight",
    "c.weight",      "d.weight",       "f.weight",    "e.*.w1.weight",
    "e.*.w2.weight", "e.gate_up_proj", "e.down_proj", "e.p",
    "q_proj",        "q_proj.weight",  "a",           "z"};

// A dimension of an operation; sometimes one that hardly a tensor has.
int Dim(Choices* choices) {
  constexpr std::array<int, 6> kDims = {0, 1, 2, 0, 1, 8};
  return choices->Of(kDims);
}

std::optional<uint64_t> Size(Choices* choices) {
  if (choices->Flag()) return std::nullopt;
  return choices->Of(kSizes);
}

// Of Chunk and Concatenate: only a named number of parts can be found in a config.
template <typename Op>
Op MakeCut(Choices* choices) {
  Op op;
  op.dim = Dim(choices);
  if (!choices->Flag()) return op;
  op.num_shards_attribute = "n";
  op.num_shards = Size(choices);
  return op;
}

Operation MakeOperation(Choices* choices) {
  switch (choices->Below(15)) {
    case 0:
      return MakeCut<ChunkOp>(choices);
    case 1:
      return MakeCut<ConcatenateOp>(choices);
    case 2:
      return SplitOp{Dim(choices)};
    case 3:
      return MergeModulelistOp{Dim(choices)};
    case 4:
      return SplitModulelistOp{Dim(choices)};
    case 5:
      return TransposeOp{Dim(choices), Dim(choices), choices->Flag(), Size(choices)};
    case 6:
      return InterleaveOp{Dim(choices), choices->Flag()};
    case 7:
      return PermuteForRopeOp{std::nullopt, {"q_proj", "a"}, choices->Flag(), Size(choices)};
    case 8:
      return Conv3dToLinearOp{3, {1, 2, 4}};
    case 9: {
      const auto size = [&] { return static_cast<int>(std::clamp<uint64_t>(choices->Of(kSizes), 1, INT32_MAX)); };
      return LinearToConv3dOp{size(), {size(), size(), size()}};
    }
    case 10:
      return ErnieFuseAndSplitOp{Dim(choices), Dim(choices)};
    case 11:
      return ErnieSplitAndDecoupleOp{Dim(choices), Dim(choices)};
    case 12:
      return Inkling2UnpadVocabOp{choices->Flag(), Size(choices), Size(choices)};
    case 13:
      return Inkling2LoopDequantizeExpertsOp{};
    default:
      return Inkling2LoopMergeMessageQueriesOp{choices->Flag()};
  }
}

Transform MakeTransform(Choices* choices) {
  Transform transform;
  const size_t sources = 1 + choices->Below(2);
  const size_t targets = 1 + choices->Below(3);
  for (size_t i = 0; i < sources; ++i) transform.source_patterns.emplace_back(choices->Of(kPatterns));
  for (size_t i = 0; i < targets; ++i) transform.target_patterns.emplace_back(choices->Of(kPatterns));
  const size_t operations = choices->Below(4);
  for (size_t i = 0; i < operations; ++i) transform.operations.push_back(MakeOperation(choices));
  if (operations > 0) {
    transform.kind = TransformKind::kWeightConverter;
  } else {
    transform.target_patterns.resize(1);
  }
  return transform;
}

// Tensors such as a header may state: no product of their sizes overflows. Their bytes are only ever counted.
TensorTable MakeTable(Choices* choices) {
  constexpr uint64_t kMaxBytes = 4 << 20;
  TensorTable table;
  table.shards.resize(1 + choices->Below(2));
  for (size_t s = 0; s < table.shards.size(); ++s) table.shards[s].name = s == 0 ? "a.safetensors" : "b.safetensors";
  uint64_t offset = 0;
  const size_t count = choices->Below(13);
  for (size_t i = 0; i < count; ++i) {
    StoredTensor tensor;
    tensor.info.name = std::string(choices->Of(kModules)) + std::string(choices->Of(kLeaves));
    tensor.info.dtype = choices->Of(kDTypes);
    const size_t rank = choices->Below(6);
    for (size_t d = 0; d < rank; ++d) tensor.info.shape.push_back(choices->Of(kSizes));
    const auto bytes = TensorBytes(tensor.info.dtype, tensor.info.shape);
    const bool known = std::any_of(table.tensors.begin(), table.tensors.end(),
                                   [&](const StoredTensor& other) { return other.info.name == tensor.info.name; });
    if (!bytes || *bytes > kMaxBytes || known) continue;
    tensor.info.begin = offset;
    tensor.info.end = offset += *bytes;
    tensor.shard = i * 2 < count ? 0 : static_cast<uint32_t>(table.shards.size() - 1);
    table.tensors.push_back(std::move(tensor));
  }
  return table;
}

// What small tensors hold: a state of bitsandbytes, or the sizes of a packed weight.
std::optional<std::string> SmallTensor(const StoredTensor& tensor, uint64_t rows, uint64_t columns) {
  if (tensor.info.name.find("quant_state") != std::string::npos)
    return R"({"shape": [)" + std::to_string(rows) + ", " + std::to_string(columns) + R"(], "blocksize": 64})";
  std::string bytes(tensor.info.end - tensor.info.begin, '\0');
  const uint64_t sizes[2] = {rows, columns};
  const size_t width = tensor.info.dtype == DType::kI64 ? 8 : 4;
  for (size_t i = 0; i < 2 && bytes.size() >= (i + 1) * width; ++i)
    std::copy_n(reinterpret_cast<const char*>(&sizes[i]), width,
                bytes.begin() + static_cast<std::ptrdiff_t>(i * width));
  return bytes;
}

uint64_t Elements(std::span<const uint64_t> shape) {
  uint64_t count = 1;
  for (const uint64_t size : shape) count *= size;
  return count;
}

void CheckRuns(const PlannedTensor& tensor, const TensorTable& table) {
  uint64_t end = 0;
  for (const Run& run : tensor.runs) {
    Check(run.target == end, "runs follow each other");
    end += run.bytes;
    if (run.tensor == kZeros) continue;
    const TensorInfo& source = table.tensors.at(run.tensor).info;
    Check(run.source + run.bytes <= source.end - source.begin, "a run reads inside its tensor");
  }
  Check(end == tensor.info.end - tensor.info.begin, "runs give all of a tensor");
}

void CheckBlocks(const PlannedTensor& tensor, const TensorTable& table) {
  const Array& array = *tensor.gathered;
  if (!array.literal.empty()) {
    Check(array.literal.size() == tensor.info.end - tensor.info.begin, "a literal has the bytes its shape says");
    return;
  }
  const auto bits = static_cast<uint64_t>(DTypeBits(array.dtype));
  uint64_t elements = 0;
  for (const Block& block : array.blocks) {
    Check(block.dims.size() == array.shape.size(), "a block has the dimensions of its array");
    uint64_t count = 1;
    uint64_t last = block.offset + bits;
    for (size_t d = 0; d < block.dims.size(); ++d) {
      Check(block.dims[d].origin + block.dims[d].extent <= array.shape[d], "a block lies inside its array");
      count *= block.dims[d].extent;
      if (block.dims[d].extent > 0) last += (block.dims[d].extent - 1) * block.dims[d].stride;
    }
    elements += count;
    if (block.tensor == kZeros || count == 0) continue;
    const TensorInfo& source = table.tensors.at(block.tensor).info;
    Check(last <= (source.end - source.begin) * 8, "a block reads inside its tensor");
  }
  Check(elements == Elements(array.shape), "blocks give all of a tensor");
}

void CheckPlan(const Plan& plan, const TensorTable& table) {
  for (const PlannedFile& file : plan.files) {
    for (const PlannedTensor& tensor : file.tensors) {
      Check(TensorBytes(tensor.info.dtype, tensor.info.shape) == tensor.info.end - tensor.info.begin,
            "a planned tensor has the bytes its shape says");
      if (tensor.gathered) {
        CheckBlocks(tensor, table);
      } else {
        CheckRuns(tensor, table);
      }
    }
  }
}

ReferenceView MakeReference(const TensorTable& table) {
  ReferenceView reference;
  std::vector<std::string> names;
  for (const StoredTensor& tensor : table.tensors) {
    names.push_back(tensor.info.name);
    reference.logical_shapes.emplace(tensor.info.name, tensor.info.shape);
  }
  reference.keys = ValueKeys(names);
  return reference;
}

}  // namespace
}  // namespace quantport

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quantport;
  Choices choices(data, size);
  ResolvedModel model;
  const size_t transforms = choices.Below(4);
  for (size_t i = 0; i < transforms; ++i) model.transforms.push_back(MakeTransform(&choices));
  RecognizeOptions recognize;
  recognize.quantized = choices.Flag();
  recognize.fp8_tile = {std::max<uint64_t>(1, choices.Of(kSizes)), std::max<uint64_t>(1, choices.Of(kSizes))};
  recognize.group_size = choices.Of(kSizes);
  recognize.bits = choices.Of(kSizes);
  recognize.ordered_groups = choices.Flag();
  const uint64_t rows = choices.Of(kSizes);
  const uint64_t columns = choices.Of(kSizes);
  const uint8_t flags = choices.Byte();
  const bool referenced = (flags & 16) != 0;
  const ReferenceView reference = referenced ? MakeReference(MakeTable(&choices)) : ReferenceView();
  const TensorTable table = MakeTable(&choices);
  recognize.read = [&](uint32_t tensor) { return SmallTensor(table.tensors[tensor], rows, columns); };

  const auto units = RecognizeUnits(table, recognize);
  if (!units) return 0;
  ConversionInput input{&table, &*units, &model, {}, referenced ? &reference : nullptr};
  input.loading = (flags & 1) != 0;
  input.stack_experts = (flags & 2) != 0;
  input.merge_max = (flags & 4) != 0;
  const auto conversion = input.loading ? ApplyNames(input) : RevertNames(input);
  if (!conversion) return 0;
  PlanOptions options;
  if ((flags & 8) != 0) options.max_shard_bytes = 1000;
  options.sharded = table.shards.size() > 1;
  const auto plan = MakePlan(*conversion, table, "in", options);
  if (plan) CheckPlan(*plan, table);
  return 0;
}
