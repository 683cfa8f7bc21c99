#include "load/configs.h"

#include <algorithm>
#include <array>
#include <memory>
#include <span>

#include "io/file.h"

namespace quantport {
namespace {

// A config of 64 MiB would hold an exclude list of a million entries.
constexpr uint64_t kMaxConfigBytes = 64 << 20;
// A tensor that says how others are stored is a few hundred bytes of JSON, or a few numbers.
constexpr uint64_t kMaxSmallTensor = 1 << 20;
// Files that hold module references, beside each other or alone, by producer: transformers and ModelOpt, ModelOpt,
// AutoAWQ and GPTQ, AutoAWQ.
constexpr std::array<std::string_view, 4> kFiles = {kConfigName, kQuantConfigName, "quantize_config.json",
                                                    "quant_config.json"};

// Adds what another file says. Where both speak, the first is taken: the check of configs finds them differing.
void Merge(const QuantScheme& from, QuantScheme* into) {
  into->quantized = true;
  if (into->quant_algo.empty()) into->quant_algo = from.quant_algo;
  if (into->claims.empty()) into->claims = from.claims;
  if (into->group_sizes.empty()) into->group_sizes = from.group_sizes;
  if (into->bits.empty()) into->bits = from.bits;
  if (!into->states_tile) into->fp8_tile = from.fp8_tile;
  into->states_tile |= from.states_tile;
  into->ordered_groups |= from.ordered_groups;
  into->zeros_less_one |= from.zeros_less_one;
  into->overrides |= from.overrides;
}

// Reads small tensors by their place in the checkpoint's table; a shard stays open between reads.
class SmallTensorReader {
 public:
  explicit SmallTensorReader(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  std::optional<std::string> Read(uint32_t index) {
    const StoredTensor& tensor = checkpoint_.table.tensors[index];
    const uint64_t bytes = tensor.info.end - tensor.info.begin;
    if (bytes > kMaxSmallTensor) return std::nullopt;
    if (!file_ || shard_ != tensor.shard) {
      auto file = File::OpenForReading(checkpoint_.directory / checkpoint_.table.shards[tensor.shard].name);
      if (!file) return std::nullopt;
      file_ = std::move(*file);
      shard_ = tensor.shard;
    }
    std::string content(bytes, '\0');
    const auto status = file_->ReadAt(std::as_writable_bytes(std::span(content)),
                                      checkpoint_.table.shards[tensor.shard].data_start + tensor.info.begin);
    return status ? std::optional(std::move(content)) : std::nullopt;
  }

 private:
  const Checkpoint& checkpoint_;
  std::optional<File> file_;
  uint32_t shard_ = 0;
};

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

RecognizeOptions RecognizeOptionsOf(const ConfigFiles& configs, const Checkpoint& checkpoint) {
  RecognizeOptions options = RecognizeOptionsOf(configs.scheme);
  options.read = [reader = std::make_shared<SmallTensorReader>(checkpoint)](uint32_t tensor) {
    return reader->Read(tensor);
  };
  return options;
}

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
    auto added = AddConfig(name, path.string(), std::move(*text), &configs);
    if (!added) errors.insert(errors.end(), added.errors().begin(), added.errors().end());
  }
  if (!errors.empty()) return errors;
  return configs;
}

Status AddConfig(std::string_view name, const std::string& file, std::string text, ConfigFiles* configs) {
  auto scheme = ReadScheme(text, file);
  if (!scheme) return scheme.errors();
  if (name == kConfigName) configs->config_text = text;
  if (scheme->quantized) {
    Merge(*scheme, &configs->scheme);
    configs->schemes.emplace(name, std::move(*scheme));
  }
  configs->quantization_files.emplace(name, std::move(text));
  return {};
}

}  // namespace quantport
