// What configs claim of modules: an input is config.json, a NUL, and hf_quant_config.json, beside weights of several
// formats. Whatever they say, every command that holds them against the tensors ends, says the same again, and says
// what is wrong.
#include <array>
#include <string>

#include "check.h"
#include "quantport/quantize.h"
#include "quantport/quantport.h"
#include "scratch.h"

namespace quantport {
namespace {

using fuzz::Check;
using fuzz::Scratch;
using fuzz::ScratchTensor;

ScratchTensor Tensor(std::string name, DType dtype, std::vector<uint64_t> shape) {
  uint64_t bytes = static_cast<uint64_t>(DTypeBits(dtype)) / 8;
  for (const uint64_t size : shape) bytes *= size;
  return {std::move(name), dtype, std::move(shape), fuzz::Fill(static_cast<uint32_t>(bytes), bytes)};
}

void WriteTensors(const std::filesystem::path& folder) {
  const std::string layer = "model.layers.0.";
  fuzz::WriteBytes(folder / "model.safetensors",
                   fuzz::Safetensors({
                       Tensor("lm_head.weight", DType::kBF16, {8, 16}),
                       Tensor(layer + "self_attn.q_proj.weight", DType::kF8E4M3, {32, 64}),
                       Tensor(layer + "self_attn.q_proj.weight_scale", DType::kF32, {}),
                       Tensor(layer + "self_attn.o_proj.weight", DType::kI8, {32, 64}),
                       Tensor(layer + "self_attn.o_proj.weight_scale", DType::kF32, {32, 1}),
                       Tensor(layer + "mlp.gate.weight", DType::kBF16, {4, 64}),
                       Tensor(layer + "mlp.experts.0.down_proj.weight", DType::kU8, {32, 32}),
                       Tensor(layer + "mlp.experts.0.down_proj.weight_scale", DType::kF8E4M3, {32, 4}),
                       Tensor(layer + "mlp.experts.0.down_proj.weight_scale_2", DType::kF32, {}),
                       Tensor(layer + "mlp.up_proj.weight_packed", DType::kI32, {32, 8}),
                       Tensor(layer + "mlp.up_proj.weight_scale", DType::kBF16, {32, 2}),
                       Tensor("model.layers.1.mlp.down_proj.weight", DType::kF8E4M3, {32, 64}),
                       Tensor("model.layers.1.mlp.down_proj.weight_scale_inv", DType::kF32, {1, 1}),
                       Tensor("model.norm.weight", DType::kBF16, {64}),
                   }));
}

std::filesystem::path Checkpoint(const Scratch& scratch) {
  const auto folder = scratch.Fresh("in");
  WriteTensors(folder);
  return folder;
}

void CheckErrors(const Errors& errors) {
  Check(!errors.empty(), "a failure has an error");
  for (const Error& error : errors) Check(!error.message.empty(), "an error says what is wrong");
}

std::string Inspected(const std::filesystem::path& folder) {
  const auto report = Inspect(folder);
  if (report) return InspectJson(*report);
  CheckErrors(report.errors());
  return ErrorsJson(report.errors());
}

std::string Verified(const std::filesystem::path& folder) {
  VerifyOptions options;
  options.checkpoint = options.reference = folder;
  const auto report = Verify(options);
  if (report) return VerifyJson(*report);
  CheckErrors(report.errors());
  return ErrorsJson(report.errors());
}

void CheckRevert(const std::filesystem::path& folder) {
  RevertOptions options;
  options.input = folder;
  const auto report = PlanRevert(options);
  if (!report) CheckErrors(report.errors());
}

void CheckQuantized(const std::filesystem::path& folder) {
  QuantizeOptions options;
  options.input = folder;
  options.recipe.name = "int8_weight_only";
  const auto report = PlanQuantize(options);
  if (!report) CheckErrors(report.errors());
}

}  // namespace
}  // namespace quantport

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quantport;
  static const Scratch scratch;
  static const std::filesystem::path folder = Checkpoint(scratch);
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t end = input.find('\0');
  fuzz::WriteBytes(folder / "config.json", input.substr(0, end));
  std::filesystem::remove(folder / "hf_quant_config.json");
  if (end != std::string_view::npos) fuzz::WriteBytes(folder / "hf_quant_config.json", input.substr(end + 1));
  Check(Inspected(folder) == Inspected(folder), "an inspection says the same again");
  Check(Verified(folder) == Verified(folder), "a verification says the same again");
  CheckRevert(folder);
  CheckQuantized(folder);
  return 0;
}
