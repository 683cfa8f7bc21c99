#include "dialect/modelopt_files.h"

#include <algorithm>
#include <set>

#include "base/json_object.h"
#include "dialect/modelopt_formats.h"

namespace quantport {
namespace {

Json LayerConfig(const QuantizedModule& module) {
  static constexpr ModelOptFormat kUnnamed;
  const ModelOptFormat* row = FindModelOptFormat(module.format);
  const ModelOptFormat& format = row == nullptr ? kUnnamed : *row;
  Json config = Json::object();
  config["quant_algo"] = format.quant_algo;
  if (format.group_size) config["group_size"] = module.block_size;
  if (format.awq_flags) {
    config["has_zero_point"] = false;
    config["pre_quant_scale"] = true;
  }
  return config;
}

bool AnyStartsWith(const std::vector<std::string>& sorted, const std::string& prefix) {
  const auto it = std::lower_bound(sorted.begin(), sorted.end(), prefix);
  return it != sorted.end() && it->starts_with(prefix);
}

std::string Renamed(const std::string& entry, const std::function<std::string(const std::string&)>& hub_name) {
  for (const std::string_view wildcard : {".*", "*"}) {
    if (entry.ends_with(wildcard)) return hub_name(entry.substr(0, entry.size() - wildcard.size())).append(wildcard);
  }
  return hub_name(entry);
}

// One group for each distinct config, in order of appearance.
Json MixedGroups(const Json& layers) {
  std::vector<std::pair<Json, std::vector<std::string>>> groups;
  for (const auto& [name, config] : layers.items()) {
    auto group =
        std::find_if(groups.begin(), groups.end(), [&, &own = config](const auto& g) { return g.first == own; });
    if (group == groups.end()) group = groups.emplace(groups.end(), config, std::vector<std::string>());
    group->second.push_back(name);
  }
  Json out = Json::object();
  for (size_t i = 0; i < groups.size(); ++i) {
    auto& [config, names] = groups[i];
    std::sort(names.begin(), names.end());
    Json group = ModelOptGroup(config["quant_algo"].get<std::string>(), config.value("group_size", 0));
    group["targets"] = names;
    out["group_" + std::to_string(i)] = std::move(group);
  }
  return out;
}

}  // namespace

std::vector<std::string> SummarizeExcluded(const std::vector<std::string>& excluded,
                                           const std::vector<std::string>& quantized) {
  std::vector<std::string> sorted = quantized;
  std::sort(sorted.begin(), sorted.end());
  std::set<std::string> summary;
  for (const std::string& name : excluded) {
    std::string chosen;
    for (size_t dot = name.find('.'); chosen.empty() && dot != std::string::npos; dot = name.find('.', dot + 1)) {
      const std::string prefix = name.substr(0, dot);
      if (!AnyStartsWith(sorted, prefix)) {
        chosen = prefix + "*";
      } else if (!AnyStartsWith(sorted, prefix + ".") && !std::binary_search(sorted.begin(), sorted.end(), prefix)) {
        chosen = prefix + ".*";
      }
    }
    if (chosen.empty() && !std::binary_search(sorted.begin(), sorted.end(), name)) chosen = name;
    if (!chosen.empty()) summary.insert(std::move(chosen));
  }
  return {summary.begin(), summary.end()};
}

Json HfQuantConfig(const std::vector<QuantizedModule>& modules, std::string_view kv_cache,
                   const std::function<std::string(const std::string&)>& hub_name) {
  std::vector<std::string> excluded;
  std::vector<std::string> quantized;
  std::vector<Json> distinct;
  JsonObjectBuilder layers;
  for (const QuantizedModule& module : modules) {
    if (module.format == FormatId::kPlain) {
      excluded.push_back(module.name);
      continue;
    }
    Json config = LayerConfig(module);
    quantized.push_back(module.name);
    if (std::find(distinct.begin(), distinct.end(), config) == distinct.end()) distinct.push_back(config);
    layers.Set(hub_name(module.name), std::move(config));
  }
  if (distinct.empty() && kv_cache.empty()) return nullptr;
  Json quantization = Json::object({{"quant_algo", nullptr}, {"kv_cache_quant_algo", nullptr}});
  if (!kv_cache.empty()) quantization["kv_cache_quant_algo"] = kv_cache;
  if (distinct.size() == 1) {
    quantization.update(distinct[0]);
    quantization["exclude_modules"] = Json::array();
    for (const std::string& entry : SummarizeExcluded(excluded, quantized))
      quantization["exclude_modules"].push_back(Renamed(entry, hub_name));
  } else {
    if (!distinct.empty()) quantization["quant_algo"] = "MIXED_PRECISION";
    quantization["quantized_layers"] = layers.Take();
  }
  Json out = Json::object();
  out["producer"] = Json::object({{"name", "modelopt"}, {"version", kModelOptVersion}});
  out["quantization"] = std::move(quantization);
  return out;
}

Json QuantizationConfig(const Json& hf_quant_config) {
  const Json& quantization = hf_quant_config.at("quantization");
  const std::string algorithm =
      quantization.at("quant_algo").is_string() ? quantization["quant_algo"].get<std::string>() : std::string();
  Json out = Json::object();
  if (algorithm == "FP8" || algorithm == "NVFP4" || algorithm == "W4A16_NVFP4") {
    Json group = ModelOptGroup(algorithm, quantization.value("group_size", 0));
    group["targets"] = Json::array({"Linear"});
    out["config_groups"]["group_0"] = std::move(group);
  } else if (algorithm == "MIXED_PRECISION") {
    out["config_groups"] = MixedGroups(quantization.at("quantized_layers"));
    out["quantized_layers"] = quantization.at("quantized_layers");
  }
  out["ignore"] = quantization.value("exclude_modules", Json::array());
  if (!algorithm.empty()) out["quant_algo"] = algorithm;
  const Json& kv_cache = quantization.at("kv_cache_quant_algo");
  if (kv_cache.is_string())
    out["kv_cache_scheme"] = kv_cache == "FP8" ? ModelOptGroup("FP8", 0).at("input_activations") : kv_cache;
  out["producer"] = hf_quant_config.at("producer");
  out["quant_method"] = "modelopt";
  return out;
}

Result<std::string> WithQuantizationConfig(const std::string& config, std::string_view file,
                                           const Json& quantization_config) {
  auto json = ParseJson(config, file, ErrorKind::kInvalidConfig);
  if (!json) return json.errors();
  if (!json->is_object()) return Error{ErrorKind::kInvalidConfig, "not a JSON object", std::string(file), {}, {}};
  (*json)["quantization_config"] = quantization_config;
  return DumpJson(*json, kModelOptStyle);
}

}  // namespace quantport
