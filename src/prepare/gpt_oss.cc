#include "prepare/gpt_oss.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/text.h"
#include "dialect/modelopt_formats.h"

namespace quantport {
namespace {

bool IsGptOss(const std::string& config) {
  const auto json = ParseJson(config, "", ErrorKind::kInvalidConfig);
  const auto is_own = [](const Json& object) {
    const auto type = object.find("model_type");
    return type != object.end() && *type == "gpt_oss";
  };
  if (!json || !json->is_object()) return false;
  const auto text = json->find("text_config");
  return is_own(*json) || (text != json->end() && text->is_object() && is_own(*text));
}

bool IsContainer(const ResolvedModule& module) { return module.module.kind == ModuleKind::kBatchedExperts; }

// "model.layers.3.self_attn" -> "model.layers.*.self_attn"
std::string WithoutNumbers(std::string_view name) {
  std::string out;
  while (!name.empty()) {
    const std::string_view segment = name.substr(0, name.find('.'));
    out += IsDigits(segment) ? "*" : std::string(segment);
    name.remove_prefix(segment.size());
    if (name.empty()) break;
    out += '.';
    name.remove_prefix(1);
  }
  return out;
}

}  // namespace

Result<bool> KeepGptOssForm(const std::string& config, const std::string& recipe, ResolvedRecipe* resolved,
                            std::vector<Warning>* warnings) {
  const bool asked = std::any_of(resolved->modules.begin(), resolved->modules.end(), [](const ResolvedModule& module) {
    return IsContainer(module) && module.format == FormatId::kMxfp4;
  });
  if (!asked || !IsGptOss(config)) return false;
  Warning left{
      "left-unquantized",
      "gpt-oss in MXFP4 has its experts quantized and nothing else, as engines load it: other linears that the "
      "recipe asks for stay as they are",
      0,
      {},
      {}};
  const std::string hint =
      "a recipe that gives the experts MXFP4 and nothing else (mxfp4_mlp_weight_only), or one "
      "without MXFP4";
  for (ResolvedModule& module : resolved->modules) {
    if (module.format == FormatId::kPlain) continue;
    if (module.format != FormatId::kMxfp4) {
      return Error{
          ErrorKind::kUnsupportedRecipe,
          fmt::format("gpt-oss's config of MXFP4 can't say that a module is {}", ModelOptFormatName(module.format)),
          recipe, module.module.name, hint};
    }
    module.format = IsContainer(module) ? FormatId::kMxfp4Blocks : FormatId::kPlain;
    if (!IsContainer(module)) AddName(module.module.name, &left);
  }
  if (!resolved->kv_cache.empty()) {
    return Error{ErrorKind::kUnsupportedRecipe,
                 fmt::format("gpt-oss's config of MXFP4 can't say that the KV cache is {}", resolved->kv_cache),
                 recipe,
                 {},
                 "pass --kv-cache none"};
  }
  if (left.count > 0) warnings->push_back(std::move(left));
  return true;
}

Json GptOssQuantization(const MemoryModel& memory, const ResolvedRecipe& resolved) {
  std::set<std::string_view> quantized;
  std::vector<std::string> attentions;
  for (const ResolvedModule& module : resolved.modules) {
    if (module.format != FormatId::kPlain) quantized.insert(module.module.name);
    if (module.module.kind == ModuleKind::kAttention) attentions.push_back(module.module.name + ".");
  }
  std::vector<std::string> entries;
  const auto add = [&](std::string entry) {
    if (std::find(entries.begin(), entries.end(), entry) == entries.end()) entries.push_back(std::move(entry));
  };
  for (const MemoryModule& module : memory.modules) {
    const std::string& name = module.module.name;
    const bool weightless = module.module.kind == ModuleKind::kInputOnly;
    if (weightless || quantized.contains(name)) continue;
    const bool inside = std::any_of(attentions.begin(), attentions.end(),
                                    [&](const std::string& attention) { return name.starts_with(attention); });
    // Experts that stay as they are, of some layers, are named by their own.
    if (!inside) add(module.module.experts > 0 ? name : WithoutNumbers(name));
  }
  return Json::object({{"quant_method", "mxfp4"}, {"modules_to_not_convert", entries}});
}

}  // namespace quantport
