#include "load/configs.h"

#include <algorithm>
#include <array>

#include "dialect/dialect.h"
#include "load/small_tensors.h"

namespace quantport {
namespace {

// A config of 64 MiB would hold an exclude list of a million entries.
constexpr uint64_t kMaxConfigBytes = 64 << 20;
// Files that hold module references, beside each other or alone, by producer: transformers and ModelOpt, ModelOpt,
// AutoAWQ and GPTQ, auto-round, AutoAWQ.
constexpr std::array<std::string_view, 5> kFiles = {kConfigName, kQuantConfigName, "quantize_config.json",
                                                    "quantization_config.json", "quant_config.json"};

void AddOnce(uint64_t value, std::vector<uint64_t>* values) {
  if (value != 0 && std::find(values->begin(), values->end(), value) == values->end()) values->push_back(value);
}

QuantScheme SchemeOf(const ConfigClaims& claims) {
  QuantScheme all;
  all.quantized = true;
  all.quant_algo = claims.algorithm;
  for (const WeightScheme& scheme : claims.schemes) {
    AddOnce(scheme.group_size, &all.group_sizes);
    AddOnce(scheme.bits, &all.bits);
    if (scheme.tile && !all.states_tile) {
      all.fp8_tile = *scheme.tile;
      all.states_tile = true;
    }
    all.ordered_groups |= scheme.ordered_groups;
    all.zeros_less_one |= scheme.zeros_less_one;
  }
  return all;
}

// Adds what another file says. Where both speak, the first is taken: the check of configs finds them differing.
void Merge(const QuantScheme& from, QuantScheme* into) {
  into->quantized = true;
  if (into->quant_algo.empty()) into->quant_algo = from.quant_algo;
  if (into->group_sizes.empty()) into->group_sizes = from.group_sizes;
  if (into->bits.empty()) into->bits = from.bits;
  if (!into->states_tile) into->fp8_tile = from.fp8_tile;
  into->states_tile |= from.states_tile;
  into->ordered_groups |= from.ordered_groups;
  into->zeros_less_one |= from.zeros_less_one;
}

// The only value of a list, or 0.
uint64_t Only(const std::vector<uint64_t>& values) { return values.size() == 1 ? values[0] : 0; }

}  // namespace

RecognizeOptions RecognizeOptionsOf(const QuantScheme& scheme) {
  RecognizeOptions options;
  options.quantized = scheme.quantized;
  options.fp8_tile = scheme.fp8_tile;
  options.group_size = Only(scheme.group_sizes);
  options.bits = Only(scheme.bits);
  options.ordered_groups = scheme.ordered_groups;
  options.algorithm = scheme.quant_algo;
  return options;
}

Result<std::vector<WeightUnit>> RecognizeCheckpoint(const Checkpoint& checkpoint, const ConfigFiles& configs) {
  SmallTensorReader reader(checkpoint);
  RecognizeOptions options = RecognizeOptionsOf(configs.scheme);
  options.read = [&reader](uint32_t tensor) { return reader.Read(tensor); };
  auto units = RecognizeUnits(checkpoint.table, options);
  if (!reader.errors().empty()) return reader.errors();
  return units;
}

Result<std::string> ReadConfigText(const Folder& folder, std::string_view name) {
  auto file = folder.Open(name);
  if (!file) return file.errors();
  return ReadText(**file, kMaxConfigBytes);
}

Result<ConfigFiles> ReadConfigs(const Checkpoint& checkpoint) {
  ConfigFiles configs;
  Errors errors;
  for (const std::string_view name : kFiles) {
    const bool there = std::binary_search(checkpoint.sidecars.begin(), checkpoint.sidecars.end(), name);
    const std::string path = checkpoint.folder->AddressOf(name);
    if (!there) {
      if (name == kConfigName) {
        errors.push_back({ErrorKind::kIo,
                          "the checkpoint has no config.json",
                          path,
                          {},
                          "it says which model this is; copy it from the model's hub repository"});
      }
      continue;
    }
    auto text = ReadConfigText(*checkpoint.folder, name);
    if (!text) {
      errors.insert(errors.end(), text.errors().begin(), text.errors().end());
      continue;
    }
    auto added = AddConfig(name, path, std::move(*text), &configs);
    if (!added) errors.insert(errors.end(), added.errors().begin(), added.errors().end());
  }
  if (!errors.empty()) return errors;
  return configs;
}

bool AnyUnreadable(const Errors& errors, const Checkpoint& checkpoint) {
  const bool absent = !checkpoint.folder->Has(kConfigName);
  return std::any_of(errors.begin(), errors.end(), [&](const Error& error) {
    return error.kind == ErrorKind::kIo && !(absent && error.file == checkpoint.folder->AddressOf(kConfigName));
  });
}

Status AddConfig(std::string_view name, const std::string& file, std::string text, ConfigFiles* configs) {
  auto claims = ReadClaims(text, file);
  if (!claims) return claims.errors();
  if (name == kConfigName) configs->config_text = text;
  if (*claims) {
    Merge(SchemeOf(**claims), &configs->scheme);
    configs->claims.emplace(name, std::move(**claims));
  }
  configs->quantization_files.emplace(name, std::move(text));
  return {};
}

}  // namespace quantport
