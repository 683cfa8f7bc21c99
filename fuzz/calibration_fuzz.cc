// Calibration files: an input is the file. Whatever it says, a result has scales of activations that divide.
#include <cmath>
#include <cstring>
#include <string>

#include "check.h"
#include "io/local_storage.h"
#include "load/recipes.h"
#include "quantport/quantize.h"
#include "scratch.h"

namespace quantport {
namespace {

using fuzz::Check;
using fuzz::Scratch;
using fuzz::ScratchTensor;

// A tiny Llama, whose attention and MLP may be named in memory or as on the hub: both are the same.
std::filesystem::path Hub(const Scratch& scratch) {
  auto hub = scratch.Fresh("hub");
  std::vector<ScratchTensor> tensors;
  for (const char* name : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                           "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}) {
    std::string bytes = fuzz::Fill(1, 2 * 16 * 16);
    for (size_t i = 1; i < bytes.size(); i += 2) bytes[i] = static_cast<char>(0x3C | (bytes[i] & 0x81));  // near 0.01
    tensors.push_back({std::string("model.layers.0.") + name + ".weight", DType::kBF16, {16, 16}, bytes});
  }
  fuzz::WriteBytes(hub / "model.safetensors", fuzz::Safetensors(tensors));
  fuzz::WriteBytes(hub / "config.json", R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
      "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "torch_dtype": "bfloat16"})");
  return hub;
}

void CheckErrors(const Errors& errors) {
  Check(!errors.empty(), "a failure has an error");
  for (const Error& error : errors) Check(!error.message.empty(), "an error says what is wrong");
}

void CheckScale(const std::string& name, const ScratchTensor& tensor) {
  if (!name.ends_with("_scale") || tensor.dtype != DType::kF32) return;
  for (size_t i = 0; i + sizeof(float) <= tensor.bytes.size(); i += sizeof(float)) {
    float scale = 0;
    std::memcpy(&scale, tensor.bytes.data() + i, sizeof scale);
    Check(std::isfinite(scale) && scale > 0, "a scale is a positive number");
  }
}

}  // namespace
}  // namespace quantport

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quantport;
  static const Scratch scratch;
  static const std::filesystem::path hub = Hub(scratch);
  const auto file = scratch / "calibration.safetensors";
  fuzz::WriteBytes(file, {reinterpret_cast<const char*>(data), size});
  const auto calibration = ReadCalibration(LocalStorage(), file.string());
  if (!calibration) {
    CheckErrors(calibration.errors());
    for (const Error& error : calibration.errors())
      Check(error.file == file.string(), "an error names the calibration");
  }
  QuantizeOptions options;
  options.input = hub;
  options.output = scratch.Fresh("out");
  options.recipe.name = "fp8_default-kv_fp8";
  options.calibration = file;
  options.threads = 1;
  const auto report = Quantize(options);
  if (!report) {
    CheckErrors(report.errors());
    return 0;
  }
  Check(calibration.ok(), "a calibration that can't be read quantizes nothing");
  for (const auto& [name, tensor] : fuzz::ReadTensors(options.output)) CheckScale(name, tensor);
  return 0;
}
