#include "mapping/registry.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <mutex>
#include <stdexcept>

#include "base/json.h"

namespace quantport {
namespace {

// A malformed entry. Thrown inside this file only and turned into an Error at its boundary: nlohmann's accessors
// throw as well, and every one of them is a malformed file.
struct Malformed : std::runtime_error {
  using std::runtime_error::runtime_error;
};

std::vector<std::string> Strings(const Json& json) {
  std::vector<std::string> out;
  for (const Json& item : json) out.push_back(item.get<std::string>());
  return out;
}

std::optional<std::string> OptionalString(const Json& json, const char* key) {
  const auto it = json.find(key);
  if (it == json.end() || it->is_null()) return std::nullopt;
  return it->get<std::string>();
}

// A value that must be a whole number from `least` to `most`: none is cut off or wraps round to another.
int Number(const Json& value, std::string_view what, int least, int most) {
  if (!value.is_number_integer()) throw Malformed(fmt::format("{} is no whole number", what));
  const auto number = value.get<double>();
  if (number < least || number > most) throw Malformed(fmt::format("{} {} is out of range", what, value.dump()));
  return value.get<int>();
}

constexpr int kMostDims = 8;
// Far more than any model has; a bound, so that nothing overflows.
constexpr int kMost = 1'000'000;

int Dim(const Json& json, const char* key) { return Number(json.at(key), key, 0, kMostDims); }

std::array<int, 3> KernelSize(const Json& json) {
  const Json& sizes = json.at("kernel_size");
  if (sizes.size() != 3) throw Malformed("kernel_size has not three entries");
  std::array<int, 3> kernel{};
  for (size_t i = 0; i < kernel.size(); ++i) kernel[i] = Number(sizes.at(i), "kernel_size", 1, kMost);
  return kernel;
}

int InChannels(const Json& json) { return Number(json.at("in_channels"), "in_channels", 1, kMost); }

Operation ParseOperation(const Json& json) {
  const std::string op = json.at("op").get<std::string>();
  if (op == "Chunk") return ChunkOp{Dim(json, "dim"), OptionalString(json, "num_shards_attribute")};
  if (op == "Concatenate") return ConcatenateOp{Dim(json, "dim"), OptionalString(json, "num_shards_attribute")};
  if (op == "Split") return SplitOp{Dim(json, "dim")};
  if (op == "MergeModulelist") return MergeModulelistOp{Dim(json, "dim")};
  if (op == "SplitModulelist") return SplitModulelistOp{Dim(json, "dim")};
  if (op == "Transpose") return TransposeOp{Dim(json, "dim0"), Dim(json, "dim1"), json.value("check_dims", false)};
  if (op == "Interleave") return InterleaveOp{Dim(json, "dim"), json.value("inverse", false)};
  if (op == "PermuteForRope") {
    const auto layers = json.find("permute_layer_names");
    return PermuteForRopeOp{OptionalString(json, "subconfig_key"),
                            layers == json.end() || layers->is_null() ? std::vector<std::string>() : Strings(*layers),
                            json.value("inverse", false)};
  }
  if (op == "Conv3dToLinear") return Conv3dToLinearOp{InChannels(json), KernelSize(json)};
  if (op == "LinearToConv3d") return LinearToConv3dOp{InChannels(json), KernelSize(json)};
  if (op == "ErnieFuseAndSplitTextVisionExperts")
    return ErnieFuseAndSplitOp{Dim(json, "stack_dim"), Dim(json, "concat_dim")};
  if (op == "ErnieSplitAndDecoupleTextVisionExperts")
    return ErnieSplitAndDecoupleOp{Dim(json, "stack_dim"), Dim(json, "concat_dim")};
  if (op == "Inkling2UnpadVocab") return Inkling2UnpadVocabOp{json.value("inverse", false)};
  if (op == "Inkling2LoopDequantizeExperts") return Inkling2LoopDequantizeExpertsOp{};
  if (op == "Inkling2LoopMergeMessageQueries") return Inkling2LoopMergeMessageQueriesOp{json.value("inverse", false)};
  throw Malformed(fmt::format("unknown operation \"{}\"", op));
}

PatternRules ParseRules(const Json& json) {
  const auto rules = json.find("pattern_rules");
  return rules == json.end() ? PatternRules::kAnywhere
                             : static_cast<PatternRules>(Number(*rules, "pattern_rules", 1, 2));
}

TransformKind ParseKind(const std::string& type) {
  for (const TransformKind kind :
       {TransformKind::kWeightRenaming, TransformKind::kGroupWeightRename, TransformKind::kPrefixChange,
        TransformKind::kIndexOffsetRename, TransformKind::kLayerPairCollapse, TransformKind::kWeightConverter}) {
    if (type == TransformKindName(kind)) return kind;
  }
  throw Malformed(fmt::format("unknown transform \"{}\"", type));
}

// As `quantport rules --json` and a live model state them. In a registry's lists there are none: resolving sets them.
void ParseScope(const Json& json, Transform* transform) {
  transform->scope_prefix = OptionalString(json, "scope_prefix");
  transform->base_model_prefix = OptionalString(json, "base_model_prefix").value_or("");
}

Transform ParseUnscoped(const Json& json) {
  const TransformKind kind = ParseKind(json.at("type").get<std::string>());
  if (kind == TransformKind::kPrefixChange) {
    auto add = OptionalString(json, "prefix_to_add");
    auto remove = OptionalString(json, "prefix_to_remove");
    if (add.has_value() == remove.has_value())
      throw Malformed("PrefixChange needs one of prefix_to_add and prefix_to_remove");
    return MakePrefixChange(std::move(add), std::move(remove), json.value("model_prefix", std::string()));
  }
  Transform transform;
  transform.kind = kind;
  transform.source_patterns = Strings(json.at("source_patterns"));
  transform.target_patterns = Strings(json.at("target_patterns"));
  if (transform.source_patterns.empty() || transform.target_patterns.empty())
    throw Malformed("a transform without patterns");
  const size_t sources = transform.source_patterns.size();
  const size_t targets = transform.target_patterns.size();
  if (kind == TransformKind::kIndexOffsetRename) transform.offset = Number(json.at("offset"), "offset", -kMost, kMost);
  if (kind == TransformKind::kWeightConverter) {
    for (const Json& operation : json.at("operations")) transform.operations.push_back(ParseOperation(operation));
    if (transform.operations.empty()) throw Malformed("a WeightConverter without operations");
  } else if (sources != targets && (kind == TransformKind::kGroupWeightRename || targets != 1)) {
    throw Malformed("a renaming whose sources and targets differ in number");
  }
  return transform;
}

Transform ParseTransform(const Json& json) {
  Transform transform = ParseUnscoped(json);
  ParseScope(json, &transform);
  return transform;
}

ChildCondition ParseCondition(const Json& json) {
  ChildCondition condition;
  condition.key = json.at("key").get<std::string>();
  condition.default_value = json.value("default", Json(nullptr)).dump();
  const bool differs = json.contains("not");
  const Json& value = json.at(differs ? "not" : "is");
  condition.value = value.dump();
  condition.test = differs             ? ChildCondition::Test::kDiffers
                   : value == "object" ? ChildCondition::Test::kIsObject
                   : value == "absent" ? ChildCondition::Test::kIsAbsent
                                       : ChildCondition::Test::kEquals;
  return condition;
}

std::vector<ChildModel> ParseChildren(const Json& json) {
  std::vector<ChildModel> children;
  for (const Json& item : json) {
    ChildModel child;
    child.path = item.at("path").get<std::string>();
    child.config = item.at("config").get<std::string>();
    child.class_name = item.value("class", std::string());
    child.auto_class = item.value("auto", std::string());
    child.auto_fallback = item.value("auto_fallback", std::string());
    child.model_type = item.value("model_type", std::string());
    child.model_type_fixed = item.value("model_type_fixed", false);
    child.flat = item.value("flat", false);
    if (const auto it = item.find("aliases"); it != item.end()) {
      for (const auto& [found, alias] : it->items()) {
        child.aliases[found] = {alias.value("model_type", found), alias.value("config", found)};
      }
    }
    if (const auto it = item.find("when"); it != item.end()) child.when = ParseCondition(*it);
    if (child.class_name.empty() == child.auto_class.empty())
      throw Malformed("a sub-model needs one of class and auto");
    if (const auto it = item.find("submodels"); it != item.end()) {
      child.has_children = true;
      child.children = ParseChildren(*it);
    }
    children.push_back(std::move(child));
  }
  return children;
}

ModelClass ParseClass(const Json& json) {
  ModelClass model;
  model.model_type = json.value("model_type", std::string());
  model.base_model_prefix = json.value("base_model_prefix", std::string());
  if (const auto it = json.find("tied_weights"); it != json.end()) {
    if (it->is_object()) {
      for (const auto& [name, source] : it->items()) model.tied_weights.push_back(name);
    } else {
      model.tied_weights = Strings(*it);
    }
  }
  if (const auto it = json.find("submodels"); it != json.end()) model.children = ParseChildren(*it);
  return model;
}

}  // namespace

Result<Registry> Registry::Parse(std::string_view text, std::string_view file) {
  auto json = ParseJson(text, file, ErrorKind::kInvalidMapping);
  if (!json) return json.errors();
  Registry registry;
  std::string entry = "the file";
  try {
    if (json->at("format") != 1) throw Malformed("its format is not 1");
    registry.version_ = fmt::format("{} {}", json->value("library", std::string("transformers")),
                                    json->value("version", std::string("?")));
    registry.pattern_rules_ = ParseRules(*json);
    std::vector<std::pair<std::string, std::string>> aliases;
    for (const auto& [key, transforms] : json->at("conversions").items()) {
      entry = fmt::format("conversions of {}", key);
      if (transforms.is_string()) {
        aliases.emplace_back(key, transforms.get<std::string>().substr(1));
        continue;
      }
      auto& list = registry.conversions_[key];
      for (const Json& transform : transforms) {
        list.push_back(ParseTransform(transform));
        list.back().rules = registry.pattern_rules_;
      }
    }
    for (const auto& [key, target] : aliases) {
      entry = fmt::format("conversions of {}", key);
      const auto it = registry.conversions_.find(target);
      if (it == registry.conversions_.end()) throw Malformed(fmt::format("refers to \"{}\", which has none", target));
      auto copy = it->second;
      registry.conversions_[key] = std::move(copy);
    }
    for (const auto& [name, model] : json->at("classes").items()) {
      entry = fmt::format("class {}", name);
      registry.classes_.emplace(name, ParseClass(model));
    }
    if (const auto it = json->find("auto"); it != json->end()) {
      for (const auto& [name, picks] : it->items()) {
        entry = name;
        for (const auto& [model_type, model] : picks.items())
          registry.auto_[name][model_type] = model.get<std::string>();
      }
    }
  } catch (const std::exception& error) {
    return Error{ErrorKind::kInvalidMapping,
                 fmt::format("{}: {}", entry, error.what()),
                 std::string(file),
                 {},
                 "see docs/mappings.md for the format"};
  }
  return registry;
}

Result<std::shared_ptr<const Registry>> Registry::BuiltIn(const BuiltInMapping& mapping) {
  static std::mutex mutex;
  static std::map<std::string, std::shared_ptr<const Registry>, std::less<>> parsed;  // by version
  const std::lock_guard lock(mutex);
  if (const auto it = parsed.find(mapping.version); it != parsed.end()) return it->second;
  auto registry = Parse(mapping.json, fmt::format("built-in mapping of transformers {}", mapping.version));
  if (!registry) return registry.errors();
  auto shared = std::make_shared<const Registry>(std::move(*registry));
  parsed.emplace(mapping.version, shared);
  return shared;
}

const ModelClass* Registry::FindClass(const std::string& name) const {
  const auto it = classes_.find(name);
  return it == classes_.end() ? nullptr : &it->second;
}

const std::string* Registry::FindClassName(const std::string& name) const {
  const auto it = classes_.find(name);
  return it == classes_.end() ? nullptr : &it->first;
}

namespace {

// "ForConditionalGeneration" of "KimiK25ForConditionalGeneration"; "Model" of a base model.
std::string_view HeadOf(std::string_view model_class) {
  for (size_t i = 1; i + 3 < model_class.size(); ++i) {
    const bool capital = model_class[i + 3] >= 'A' && model_class[i + 3] <= 'Z';
    if (capital && model_class.substr(i, 3) == "For") return model_class.substr(i);
  }
  return model_class.ends_with("Model") ? "Model" : "";
}

}  // namespace

const std::string* Registry::PickClass(const std::string& model_type, std::string_view like) const {
  if (model_type.empty()) return nullptr;
  const std::array<std::string_view, 4> heads = {HeadOf(like), "ForConditionalGeneration", "ForCausalLM", "Model"};
  // Of several, transformers' own auto classes have the one with the plainest name.
  std::array<const std::string*, heads.size()> picked = {};
  for (const auto& [name, model] : classes_) {
    if (model.model_type != model_type) continue;
    for (size_t i = 0; i < heads.size(); ++i) {
      if (heads[i].empty() || HeadOf(name) != heads[i]) continue;
      if (picked[i] == nullptr || std::pair(name.size(), name) < std::pair(picked[i]->size(), *picked[i]))
        picked[i] = &name;
    }
  }
  const auto found =
      std::find_if(picked.begin(), picked.end(), [](const std::string* name) { return name != nullptr; });
  return found == picked.end() ? nullptr : *found;
}

const std::vector<Transform>* Registry::FindConversions(const std::string& key) const {
  const auto it = conversions_.find(key);
  return it == conversions_.end() ? nullptr : &it->second;
}

const std::string* Registry::FindAuto(const std::string& auto_class, const std::string& model_type) const {
  const auto it = auto_.find(auto_class);
  if (it == auto_.end()) return nullptr;
  const auto pick = it->second.find(model_type);
  return pick == it->second.end() ? nullptr : &pick->second;
}

}  // namespace quantport
