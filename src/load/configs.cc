#include "load/configs.h"

#include <algorithm>
#include <array>

#include "io/file.h"

namespace quantport {
namespace {

// A config of 64 MiB would hold an exclude list of a million entries.
constexpr uint64_t kMaxConfigBytes = 64 << 20;
// Files that hold module references, beside each other or alone, by producer: transformers and ModelOpt, ModelOpt,
// AutoAWQ and GPTQ, AutoAWQ.
constexpr std::array<std::string_view, 4> kFiles = {kConfigName, kQuantConfigName, "quantize_config.json",
                                                    "quant_config.json"};

}  // namespace

Result<ConfigFiles> ReadConfigs(const Checkpoint& checkpoint) {
  ConfigFiles configs;
  Errors errors;
  for (const std::string_view name : kFiles) {
    const bool there = std::binary_search(checkpoint.sidecars.begin(), checkpoint.sidecars.end(), name);
    const auto path = checkpoint.directory / name;
    if (!there) {
      if (name == kConfigName) {
        errors.push_back({ErrorKind::kIo,
                          "the checkpoint has no config.json",
                          path.string(),
                          {},
                          "it says which model this is; copy it from the model's hub repository"});
      }
      continue;
    }
    auto text = ReadTextFile(path, kMaxConfigBytes);
    if (!text) {
      errors.insert(errors.end(), text.errors().begin(), text.errors().end());
      continue;
    }
    auto scheme = ReadScheme(*text, path.string());
    if (!scheme) {
      errors.insert(errors.end(), scheme.errors().begin(), scheme.errors().end());
      continue;
    }
    if (name == kConfigName) configs.config_text = *text;
    if (scheme->quantized) {
      configs.scheme.quantized = true;
      if (configs.scheme.quant_algo.empty()) configs.scheme.quant_algo = scheme->quant_algo;
      if (scheme->fp8_block_size != QuantScheme().fp8_block_size)
        configs.scheme.fp8_block_size = scheme->fp8_block_size;
      configs.schemes.emplace(name, std::move(*scheme));
    }
    configs.quantization_files.emplace(name, std::move(*text));
  }
  if (!errors.empty()) return errors;
  return configs;
}

}  // namespace quantport
