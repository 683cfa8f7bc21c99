// Stored weights: one quantized weight of a known format, of which parts have another dtype or shape, other bytes, or
// are gone. Whatever that is, it ends; what is dequantized is plain, and owes nothing to the tensors around it.
#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <string_view>

#include "check.h"
#include "choices.h"
#include "quantport/quantize.h"
#include "quantport/quantport.h"
#include "safetensors/header.h"
#include "scratch.h"

namespace quantport {
namespace {

using fuzz::Check;
using fuzz::Choices;
using fuzz::Scratch;
using fuzz::ScratchTensor;

struct Part {
  std::string_view leaf;  // behind the module's name
  DType dtype;
  std::vector<uint64_t> shape;
};

struct Form {
  std::string_view quantization;  // quantization_config
  std::vector<Part> parts;
};

constexpr std::string_view kPackedInts =
    R"({"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": {"targets": ["Linear"],
        "weights": {"num_bits": 4, "type": "int", "symmetric": false, "group_size": 32, "strategy": "group"}}}})";
constexpr std::string_view kChannelInts =
    R"({"quant_method": "compressed-tensors", "format": "int-quantized", "config_groups": {"group_0": {"targets": ["Linear"],
        "weights": {"num_bits": 8, "type": "int", "strategy": "channel"}}}})";

// A weight of 32 outputs and 64 inputs, experts three of them, in the forms that are told apart.
const std::vector<Form>& Forms() {
  static const std::vector<Form> kForms = {
      {R"({"quant_method": "modelopt", "quant_algo": "NVFP4"})",
       {{".weight", DType::kU8, {32, 32}},
        {".weight_scale", DType::kF8E4M3, {32, 4}},
        {".weight_scale_2", DType::kF32, {}},
        {".input_scale", DType::kF32, {}},
        {".pre_quant_scale", DType::kBF16, {64}}}},
      {R"({"quant_method": "modelopt", "quant_algo": "FP8"})",
       {{".weight", DType::kF8E4M3, {32, 64}}, {".weight_scale", DType::kF32, {}}, {".input_scale", DType::kF32, {}}}},
      {R"({"quant_method": "modelopt", "quant_algo": "FP8_PER_CHANNEL_PER_TOKEN"})",
       {{".weight", DType::kF8E4M3, {32, 64}}, {".weight_scale", DType::kF32, {32}}}},
      {R"({"quant_method": "modelopt", "quant_algo": "fp8_pb_wo"})",
       {{".weight", DType::kF8E4M3, {256, 128}}, {".weight_scale", DType::kF32, {2, 1, 1, 1}}}},
      {R"({"quant_method": "modelopt", "quant_algo": "MXFP8"})",
       {{".weight", DType::kF8E4M3, {32, 64}}, {".weight_scale", DType::kU8, {32, 2}}}},
      {R"({"quant_method": "modelopt", "quant_algo": "mxfp4"})",
       {{".weight", DType::kU8, {32, 32}}, {".weight_scale", DType::kU8, {32, 2}}}},
      {R"({"quant_method": "modelopt", "quant_algo": "W4A16_AWQ"})",
       {{".weight", DType::kU8, {16, 128}},
        {".weight_scale", DType::kF32, {32, 1}},
        {".pre_quant_scale", DType::kBF16, {128}}}},
      {R"({"quant_method": "modelopt", "quant_algo": "W8A8_SQ_PER_CHANNEL"})",
       {{".weight", DType::kI8, {32, 64}},
        {".weight_scale", DType::kF32, {32}},
        {".pre_quant_scale", DType::kBF16, {64}},
        {".input_scale", DType::kF32, {}}}},
      {kChannelInts,
       {{".weight", DType::kI8, {32, 64}},
        {".weight_scale", DType::kBF16, {32, 1}},
        {".weight_zero_point", DType::kI8, {32, 1}}}},
      {kPackedInts,
       {{".weight_packed", DType::kI32, {32, 8}},
        {".weight_scale", DType::kBF16, {32, 2}},
        {".weight_zero_point", DType::kI32, {4, 2}},
        {".weight_shape", DType::kI64, {2}},
        {".weight_g_idx", DType::kI32, {64}}}},
      {R"({"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"})",
       {{".weight_packed", DType::kU8, {32, 32}},
        {".weight_scale", DType::kF8E4M3, {32, 4}},
        {".weight_global_scale", DType::kF32, {1}},
        {".input_global_scale", DType::kF32, {1}}}},
      {R"({"quant_method": "compressed-tensors", "format": "mxfp4-pack-quantized"})",
       {{".weight_packed", DType::kU8, {32, 32}}, {".weight_scale", DType::kU8, {32, 2}}}},
      {R"({"quant_method": "fp8", "weight_block_size": [16, 32]})",
       {{".weight", DType::kF8E4M3, {32, 64}}, {".weight_scale_inv", DType::kF32, {2, 2}}}},
      {R"({"quant_method": "fp8", "weight_block_size": [16, 32]})",
       {{"", DType::kF8E4M3, {3, 32, 64}}, {"_scale_inv", DType::kF8E8M0, {3, 2, 2}}}},
      {R"({"quant_method": "mxfp4"})", {{"_blocks", DType::kU8, {3, 32, 2, 16}}, {"_scales", DType::kU8, {3, 32, 2}}}},
      {R"({"quant_method": "gptq", "bits": 4, "group_size": 32, "checkpoint_format": "gptq_v2"})",
       {{".qweight", DType::kI32, {8, 32}},
        {".qzeros", DType::kI32, {2, 4}},
        {".scales", DType::kF16, {2, 32}},
        {".g_idx", DType::kI32, {64}}}},
      {R"({"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"})",
       {{".qweight", DType::kI32, {64, 4}}, {".qzeros", DType::kI32, {2, 4}}, {".scales", DType::kF16, {2, 32}}}},
      {R"({"quant_method": "bitsandbytes", "load_in_8bit": true})",
       {{".weight", DType::kI8, {32, 64}}, {".SCB", DType::kF32, {32}}, {".weight_format", DType::kU8, {}}}},
      {R"({"quant_method": "quark"})",
       {{".weight", DType::kI32, {64, 4}},
        {".weight_scale", DType::kBF16, {2, 32}},
        {".weight_zero_point", DType::kI32, {2, 4}}}},
  };
  return kForms;
}

constexpr std::string_view kModule = "model.layers.0.mlp.down_proj";
constexpr std::array<uint64_t, 16> kSizes = {0, 1, 2, 3, 4, 5, 8, 12, 16, 24, 31, 32, 33, 64, 65, 128};
constexpr size_t kMaxBytes = 1 << 16;
// Numbers that a scale's reader could take for one: what is read outside of a tensor shows in the result.
constexpr size_t kGuard = 1 << 17;

void Change(Part* part, Choices* choices) {
  const uint8_t what = choices->Byte();
  if ((what & 1) != 0) part->dtype = static_cast<DType>(choices->Below(kDTypeCount));
  if ((what & 2) != 0 && !part->shape.empty()) part->shape[choices->Below(part->shape.size())] = choices->Of(kSizes);
  if ((what & 4) != 0) {
    part->shape.resize(choices->Below(5));
    for (uint64_t& size : part->shape) size = choices->Of(kSizes);
  }
}

template <typename Int>
void PutInts(const std::vector<Int>& values, std::string* bytes) {
  std::memcpy(bytes->data(), values.data(), std::min(bytes->size(), values.size() * sizeof(Int)));
}

// Codes and scales may be any bytes; what counts or numbers something is right, unless the input says otherwise.
std::string BytesOf(const Part& part, size_t count, Choices* choices) {
  const uint8_t seed = choices->Byte();
  std::string bytes = fuzz::Fill(seed, count);
  if (seed >= 0xE0) return bytes;
  if (part.leaf == ".weight_shape") PutInts<int64_t>({32, 64}, &bytes);
  if (part.leaf == ".weight_format") PutInts<uint8_t>({0}, &bytes);
  if (part.leaf == ".g_idx" || part.leaf == ".weight_g_idx") {
    std::vector<int32_t> groups(64);
    for (size_t i = 0; i < groups.size(); ++i) groups[i] = static_cast<int32_t>(i / 32);
    PutInts(groups, &bytes);
  }
  return bytes;
}

// Nothing where it would be too much, or no header could state it.
std::vector<ScratchTensor> MakeWeight(const Form& form, Choices* choices) {
  std::vector<ScratchTensor> tensors;
  for (Part part : form.parts) {
    const uint8_t kind = choices->Byte();
    if (kind % 8 == 7) continue;
    if (kind % 8 >= 4) Change(&part, choices);
    const auto bytes = TensorBytes(part.dtype, part.shape);
    if (!bytes || *bytes > kMaxBytes) return {};
    tensors.push_back(
        {std::string(kModule) + std::string(part.leaf), part.dtype, part.shape, BytesOf(part, *bytes, choices)});
  }
  return tensors;
}

void WriteCheckpoint(const std::filesystem::path& folder, std::string_view quantization,
                     const std::vector<ScratchTensor>& weight, char around) {
  std::vector<ScratchTensor> tensors;
  for (size_t i = 0; i < weight.size(); ++i) {
    tensors.push_back({"guard." + std::to_string(i), DType::kF32, {kGuard / 4}, std::string(kGuard, around)});
    tensors.push_back(weight[i]);
  }
  tensors.push_back({"guard.end", DType::kF32, {kGuard / 4}, std::string(kGuard, around)});
  fuzz::WriteBytes(folder / "model.safetensors", fuzz::Safetensors(tensors));
  fuzz::WriteBytes(folder / "config.json",
                   std::string(R"({"architectures": ["NoSuchModel"], "dtype": "float32", "quantization_config": )") +
                       std::string(quantization) + "}");
}

void CheckErrors(const Errors& errors) {
  Check(!errors.empty(), "a failure has an error");
  for (const Error& error : errors) Check(!error.message.empty(), "an error says what is wrong");
}

// The result without what lies around the weight, or nothing where it was refused.
std::map<std::string, ScratchTensor> Dequantized(const std::filesystem::path& from, const std::filesystem::path& to) {
  DequantizeOptions options;
  options.input = from;
  options.output = to;
  options.threads = 1;
  const auto report = Dequantize(options);
  if (!report) {
    CheckErrors(report.errors());
    return {};
  }
  auto tensors = fuzz::ReadTensors(to);
  std::erase_if(tensors, [](const auto& entry) { return entry.first.starts_with("guard."); });
  return tensors;
}

bool IsPlain(const std::string& name, const ScratchTensor& tensor) {
  const bool value = name == kModule || name == std::string(kModule) + ".weight";
  return value && (tensor.dtype == DType::kF32 || tensor.dtype == DType::kBF16 || tensor.dtype == DType::kF16);
}

}  // namespace
}  // namespace quantport

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quantport;
  static const Scratch scratch;
  Choices choices(data, size);
  const Form& form = Forms()[choices.Below(Forms().size())];
  // A config that says nothing, too.
  const std::string_view quantization = choices.Byte() == 1 ? "null" : form.quantization;
  const std::vector<ScratchTensor> weight = MakeWeight(form, &choices);
  if (weight.empty()) return 0;
  const auto in = scratch.Fresh("in");
  WriteCheckpoint(in, quantization, weight, 0x3F);
  if (const auto report = Inspect(in)) static_cast<void>(InspectJson(*report));
  const auto plain = Dequantized(in, scratch.Fresh("out"));
  WriteCheckpoint(in, quantization, weight, 0x41);
  const auto again = Dequantized(in, scratch.Fresh("out"));
  Check(plain.size() == again.size(), "tensors around a weight do not decide whether it is read");
  for (const auto& [name, tensor] : plain) {
    Check(IsPlain(name, tensor), "nothing of a quantized weight is left");
    const auto other = again.find(name);
    Check(other != again.end() && other->second.shape == tensor.shape && other->second.bytes == tensor.bytes,
          "a weight owes nothing to the tensors around it");
  }
  return 0;
}
