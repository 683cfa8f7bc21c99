#include "recipe/resolve.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <set>

#include "base/text.h"

namespace quantport {
namespace {

// The classes of torch that ModelOpt registers by name; those of transformers are the model's own.
constexpr std::array<std::string_view, 27> kTorchClasses = {"Linear",
                                                            "Conv1d",
                                                            "Conv2d",
                                                            "Conv3d",
                                                            "ConvTranspose1d",
                                                            "ConvTranspose2d",
                                                            "ConvTranspose3d",
                                                            "Embedding",
                                                            "LayerNorm",
                                                            "BatchNorm1d",
                                                            "BatchNorm2d",
                                                            "BatchNorm3d",
                                                            "InstanceNorm1d",
                                                            "InstanceNorm2d",
                                                            "InstanceNorm3d",
                                                            "LeakyReLU",
                                                            "MaxPool1d",
                                                            "MaxPool2d",
                                                            "MaxPool3d",
                                                            "AvgPool1d",
                                                            "AvgPool2d",
                                                            "AvgPool3d",
                                                            "AdaptiveAvgPool1d",
                                                            "AdaptiveAvgPool2d",
                                                            "AdaptiveAvgPool3d",
                                                            "RNN",
                                                            "LSTM"};

QuantizerAttributes Int8() { return {}; }

QuantizerAttributes Int8PerChannel() {
  QuantizerAttributes attributes;
  attributes.axis = {0};
  return attributes;
}

AttributeList Shared(std::vector<QuantizerAttributes> attributes) {
  return std::make_shared<const std::vector<QuantizerAttributes>>(std::move(attributes));
}

// A recipe made ready to be applied to many modules.
struct Prepared {
  explicit Prepared(const Recipe& of) : recipe(of) {
    for (const RecipeEntry& entry : recipe.entries) cfgs.push_back(entry.cfg.empty() ? nullptr : Shared(entry.cfg));
    by_hub.assign(recipe.entries.size(), false);
  }

  const Recipe& recipe;
  std::vector<AttributeList> cfgs;  // one an entry
  std::vector<bool> by_hub;         // one an entry: whether it is matched with the hub's names
  AttributeList int8 = Shared({Int8()});
  AttributeList int8_per_channel = Shared({Int8PerChannel()});
};

// "nn.Linear", "hf.MixtralExperts" or a bare name -> the class.
std::string_view ClassOf(std::string_view parent_class) {
  for (const std::string_view prefix : {"nn.", "hf."}) {
    if (parent_class.starts_with(prefix)) return parent_class.substr(prefix.size());
  }
  return parent_class;
}

// A subclass of Linear or Embedding is one: ModelOpt asks by isinstance.
bool IsOfClass(const QuantizableModule& module, std::string_view parent_class) {
  const std::string_view name = ClassOf(parent_class);
  return module.class_name == name || (name == "Linear" && module.kind == ModuleKind::kLinear) ||
         (name == "Embedding" && module.kind == ModuleKind::kEmbedding);
}

struct NamedQuantizer {
  std::string full;                        // as ModelOpt names it
  std::string singular;                    // the same without plural and number, where that differs
  std::string own = {};                    // below its matrix: "weight_quantizer"
  std::vector<std::string_view> hub = {};  // the hub's modules that its matrices are made of
};

bool NamesAll(const std::string& pattern, const NamedQuantizer& name) {
  return !name.hub.empty() && std::all_of(name.hub.begin(), name.hub.end(), [&](std::string_view module) {
    return GlobMatch(pattern, fmt::format("{}.{}", module, name.own)) ||
           GlobMatch(pattern, fmt::format("{}_{}", module, name.own));
  });
}

bool Matches(const RecipeEntry& entry, bool by_hub, const QuantizableModule& module, const NamedQuantizer& name) {
  const bool named = by_hub ? NamesAll(entry.quantizer_name, name)
                            : GlobMatch(entry.quantizer_name, name.full) ||
                                  (!name.singular.empty() && GlobMatch(entry.quantizer_name, name.singular));
  if (!named) return false;
  return !entry.parent_class || IsOfClass(module, *entry.parent_class);
}

void Apply(const Prepared& prepared, const QuantizableModule& module, const NamedQuantizer& name,
           ResolvedQuantizer* quantizer) {
  for (size_t i = 0; i < prepared.recipe.entries.size(); ++i) {
    const RecipeEntry& entry = prepared.recipe.entries[i];
    if (!Matches(entry, prepared.by_hub[i], module, name)) continue;
    quantizer->enabled = entry.enable;
    quantizer->entry = static_cast<int>(i);
    if (prepared.cfgs[i]) quantizer->attributes = prepared.cfgs[i];
  }
}

ResolvedQuantizer Quantizer(std::string name, bool enabled, AttributeList attributes) {
  return {std::move(name), enabled, std::move(attributes), -1};
}

std::vector<ResolvedQuantizer> DefaultQuantizers(const QuantizableModule& module, const Prepared& prepared) {
  const AttributeList& int8 = prepared.int8;
  const AttributeList& rows = prepared.int8_per_channel;
  switch (module.kind) {
    case ModuleKind::kLinear:
    case ModuleKind::kConvolution:
      return {Quantizer("input_quantizer", true, int8), Quantizer("output_quantizer", false, int8),
              Quantizer("weight_quantizer", true, rows)};
    case ModuleKind::kEmbedding:
      return {Quantizer("weight_quantizer", true, int8), Quantizer("input_quantizer", false, int8),
              Quantizer("output_quantizer", false, int8)};
    case ModuleKind::kInputOnly:
      return {Quantizer("input_quantizer", true, int8), Quantizer("output_quantizer", false, int8)};
    case ModuleKind::kAttention:
      return {Quantizer("q_bmm_quantizer", true, int8), Quantizer("k_bmm_quantizer", true, int8),
              Quantizer("v_bmm_quantizer", true, int8), Quantizer("p_bmm_quantizer", true, int8)};
    case ModuleKind::kBatchedExperts:
      return {Quantizer("gate_up_proj_input_quantizer", true, int8),
              Quantizer("gate_up_proj_weight_quantizer", true, int8),
              Quantizer("down_proj_input_quantizer", true, int8), Quantizer("down_proj_weight_quantizer", true, int8)};
    case ModuleKind::kFusedExperts: {
      const std::string first = module.gated ? "gate_up_proj" : "up_proj";
      return {Quantizer(first + "_input_quantizer", true, int8), Quantizer("down_proj_input_quantizer", true, int8),
              Quantizer(first + "_weight_quantizers", true, int8),
              Quantizer("down_proj_weight_quantizers", true, int8)};
    }
  }
  return {};
}

Error Unsupported(const Recipe& recipe, int entry, const QuantizableModule& module, const std::string& what,
                  std::string hint = {}) {
  Error error{ErrorKind::kUnsupportedRecipe, {}, recipe.name, module.name, std::move(hint)};
  if (entry < 0) {
    error.message = fmt::format("recipe {}, by ModelOpt's defaults, asks for {}", Printable(recipe.name), what);
    if (error.hint.empty()) error.hint = "let the recipe begin with {quantizer_name: '*', enable: false}";
    return error;
  }
  const RecipeEntry& cause = recipe.entries[static_cast<size_t>(entry)];
  error.file = cause.place;
  error.message = fmt::format("entry \"{}\" of recipe {} asks for {}", Printable(cause.quantizer_name),
                              Printable(recipe.name), what);
  return error;
}

bool OfAllExperts(const ResolvedQuantizer& quantizer) { return quantizer.name.ends_with("_quantizers"); }

// A quantizer's names; `expert` where each expert has one.
NamedQuantizer NamesOf(const QuantizableModule& module, const ResolvedQuantizer& quantizer, int expert = 0) {
  NamedQuantizer name;
  std::string own = quantizer.name;
  const bool each = OfAllExperts(quantizer);
  if (each) {
    name.full = fmt::format("{}.{}.{}", module.name, own, expert);
    own.pop_back();
    name.singular = JoinName(module.name, own);
  } else {
    name.full = JoinName(module.name, own);
  }
  const size_t kind = std::min(own.rfind("_weight_quantizer"), own.rfind("_input_quantizer"));
  const bool projects = kind != std::string::npos;
  const std::string projection = projects ? own.substr(0, kind) : "";
  name.own = projects ? own.substr(kind + 1) : own;
  if (module.hub.empty()) return name;
  const auto first = module.hub.lower_bound({projection, each ? static_cast<uint64_t>(expert) : 0});
  for (auto it = first; it != module.hub.end() && it->first.first == projection; ++it) {
    if (each && it != first) break;
    name.hub.insert(name.hub.end(), it->second.begin(), it->second.end());
  }
  return name;
}

// All experts of a container, as one: ModelOpt's own config speaks of the container only.
Status ApplyToExperts(const Prepared& prepared, const QuantizableModule& module, ResolvedQuantizer* quantizer) {
  std::optional<ResolvedQuantizer> first;
  for (int expert = 0; expert < module.experts; ++expert) {
    ResolvedQuantizer own = *quantizer;
    Apply(prepared, module, NamesOf(module, own, expert), &own);
    if (!first) first = own;
    if (own.enabled != first->enabled || *own.attributes != *first->attributes)
      return Unsupported(prepared.recipe, own.entry, module, "different settings for the experts of one container");
  }
  if (first) *quantizer = std::move(*first);
  return {};
}

// Entries that match nothing in memory, and something by the hub's names.
void FindEntriesByHub(const std::vector<QuantizableModule>& modules, Prepared* prepared) {
  const std::vector<RecipeEntry>& entries = prepared->recipe.entries;
  for (size_t i = 0; i < entries.size(); ++i) {
    if (!MayNameHub(entries[i])) continue;
    bool in_memory = false;
    bool by_hub = false;
    for (const QuantizableModule& module : modules) {
      for (const ResolvedQuantizer& quantizer : DefaultQuantizers(module, *prepared)) {
        const NamedQuantizer name = NamesOf(module, quantizer);
        in_memory |= Matches(entries[i], false, module, name);
        by_hub |= Matches(entries[i], true, module, name);
      }
      if (in_memory) break;
    }
    prepared->by_hub[i] = by_hub && !in_memory;
  }
}

Status ResolveModule(const Prepared& prepared, ResolvedModule* resolved) {
  const QuantizableModule& module = resolved->module;
  resolved->quantizers = DefaultQuantizers(module, prepared);
  for (ResolvedQuantizer& quantizer : resolved->quantizers) {
    if (OfAllExperts(quantizer)) {
      if (Status status = ApplyToExperts(prepared, module, &quantizer); !status) return status;
    } else {
      Apply(prepared, module, NamesOf(module, quantizer), &quantizer);
    }
    // ModelOpt's embedding takes the setting and stays disabled: its input are numbers of rows.
    if (module.kind == ModuleKind::kEmbedding && quantizer.name == "input_quantizer") quantizer.enabled = false;
  }
  return {};
}

struct Projection {
  FormatId format = FormatId::kPlain;
  int block_size = 0;
  int entry = -1;
};

Result<Projection> FormatOfProjection(const Recipe& recipe, const ResolvedModule& module,
                                      const std::string& weight_name, const std::string& input_name) {
  const ResolvedQuantizer* weight = module.Find(weight_name);
  const ResolvedQuantizer* input = module.Find(input_name);
  if (weight == nullptr || !weight->enabled)
    return Projection{FormatId::kPlain, 0, weight == nullptr ? -1 : weight->entry};
  const QuantizerAttributes* attributes = input != nullptr && input->enabled ? &input->attributes->front() : nullptr;
  if (attributes != nullptr && input->attributes->size() > 1)
    return Unsupported(recipe, input->entry, module.module, "inputs quantized several times");
  const FormatOrReason found = FormatOf(*weight->attributes, attributes);
  if (!found.reason.empty())
    return Unsupported(recipe, weight->entry, module.module, found.reason, "ModelOpt's export has no format for it");
  return Projection{found.format, BlockSizeOf(*weight->attributes), weight->entry};
}

Status SetFormat(const Recipe& recipe, ResolvedModule* module) {
  const ModuleKind kind = module->module.kind;
  if (kind == ModuleKind::kInputOnly || kind == ModuleKind::kAttention) return {};
  const bool experts = kind == ModuleKind::kFusedExperts || kind == ModuleKind::kBatchedExperts;
  const std::string first = !experts ? "" : module->module.gated ? "gate_up_proj_" : "up_proj_";
  const std::string plural = kind == ModuleKind::kFusedExperts ? "s" : "";
  auto projection = FormatOfProjection(recipe, *module, first + "weight_quantizer" + plural, first + "input_quantizer");
  if (!projection) return projection.errors();
  if (experts) {
    auto down = FormatOfProjection(recipe, *module, "down_proj_weight_quantizer" + plural, "down_proj_input_quantizer");
    if (!down) return down.errors();
    if (down->format != projection->format || down->block_size != projection->block_size)
      return Unsupported(recipe, down->entry, module->module,
                         "different formats for the two projections of a container");
  }
  module->format = projection->format;
  module->block_size = projection->block_size;
  return {};
}

// get_kv_cache_dtype: an enabled output quantizer counts as well.
Result<std::string> KvCacheOf(const Recipe& recipe, const ResolvedModule& module) {
  std::vector<const ResolvedQuantizer*> enabled;
  for (const std::string_view name : {"k_bmm_quantizer", "v_bmm_quantizer", "output_quantizer"}) {
    const ResolvedQuantizer* quantizer = module.Find(name);
    if (quantizer != nullptr && quantizer->enabled) enabled.push_back(quantizer);
  }
  if (enabled.empty()) return std::string();
  const auto has = [&](const NumberBits& bits) {
    return std::any_of(enabled.begin(), enabled.end(),
                       [&](const auto* q) { return q->attributes->front().num_bits == bits; });
  };
  const bool affine =
      std::all_of(enabled.begin(), enabled.end(), [](const auto* q) { return q->attributes->front().bias; });
  if (has(NumberBits::Float(4, 3))) return std::string("FP8");
  if (has(NumberBits())) return std::string("INT8");
  if (has(NumberBits::Float(2, 1))) return std::string(affine ? "NVFP4_AFFINE" : "NVFP4");
  return Unsupported(recipe, enabled.front()->entry, module.module,
                     fmt::format("a KV cache of {}", ToString(enabled.front()->attributes->front().num_bits)));
}

Status SetKvCache(const Recipe& recipe, ResolvedRecipe* model) {
  for (const ResolvedModule& module : model->modules) {
    auto kv_cache = KvCacheOf(recipe, module);
    if (!kv_cache) return kv_cache.errors();
    if (kv_cache->empty()) continue;
    if (model->kv_cache.empty()) model->kv_cache = *kv_cache;
    if (model->kv_cache != *kv_cache) {
      return Error{ErrorKind::kUnsupportedRecipe,
                   fmt::format("recipe {} asks for a KV cache of {} here and of {} before", Printable(recipe.name),
                               *kv_cache, model->kv_cache),
                   recipe.name, module.module.name, "ModelOpt's export knows one format for all of the KV cache"};
    }
  }
  return {};
}

// A model that comes out as it was is a pattern that does not fit its names; ModelOpt refuses it as well.
Status CheckThatWeightsAreQuantized(const Recipe& recipe, const ResolvedRecipe& model) {
  if (std::any_of(model.modules.begin(), model.modules.end(),
                  [](const ResolvedModule& module) { return module.format != FormatId::kPlain; }))
    return {};
  std::set<std::string> asking;
  for (const RecipeEntry& entry : recipe.entries) {
    const bool weights = entry.quantizer_name.find("weight_quantizer") != std::string::npos ||
                         GlobMatch(entry.quantizer_name, "weight_quantizer");
    if (!weights) continue;
    if (entry.enable) asking.insert(Printable(entry.quantizer_name));
    if (!entry.enable) asking.erase(Printable(entry.quantizer_name));
  }
  if (asking.empty()) return {};
  return Error{ErrorKind::kUnsupportedRecipe,
               fmt::format("recipe {} would quantize no weight of this model", Printable(recipe.name)),
               recipe.name,
               {},
               fmt::format("it asks for {}", fmt::join(asking, ", "))};
}

// Whether a pattern is for what keys or values are quantized by, and for nothing else.
bool SpeaksOfKvCache(const RecipeEntry& entry) {
  const std::string& name = entry.quantizer_name;
  return name.ends_with("_bmm_quantizer") && !name.ends_with("q_bmm_quantizer") && !name.ends_with("p_bmm_quantizer");
}

// Else the config would say of the cache what nobody asked for: that it is not quantized.
Status CheckThatCacheIsQuantized(const Recipe& recipe, const ResolvedRecipe& model) {
  if (!model.kv_cache.empty()) return {};
  const RecipeEntry* asking = nullptr;
  for (const RecipeEntry& entry : recipe.entries) {
    if (SpeaksOfKvCache(entry)) asking = entry.enable ? &entry : nullptr;
  }
  if (asking == nullptr) return {};
  return Error{
      ErrorKind::kUnsupportedRecipe,
      fmt::format("entry \"{}\" of recipe {} asks for a quantized KV cache, and no attention of this model has that",
                  Printable(asking->quantizer_name), Printable(recipe.name)),
      asking->place,
      {},
      "pass --kv-cache none"};
}

Status CheckParentClasses(const Recipe& recipe, const std::vector<QuantizableModule>& modules) {
  for (const RecipeEntry& entry : recipe.entries) {
    if (!entry.parent_class) continue;
    const std::string_view name = ClassOf(*entry.parent_class);
    const bool known = name == "GRU" ||
                       std::find(kTorchClasses.begin(), kTorchClasses.end(), name) != kTorchClasses.end() ||
                       std::any_of(modules.begin(), modules.end(),
                                   [&](const QuantizableModule& module) { return module.class_name == name; });
    if (known) continue;
    return Error{ErrorKind::kInvalidRecipe,
                 fmt::format("the parent_class {} is no class that has quantizers", Printable(*entry.parent_class)),
                 entry.place,
                 {},
                 "torch's are written nn.Linear, nn.Embedding, ..."};
  }
  return {};
}

}  // namespace

bool MayNameHub(const RecipeEntry& entry) {
  const auto below = [&](std::string_view folder) { return entry.place.find(folder) != std::string::npos; };
  return !below("configs/ptq/") && !below("general/ptq/");
}

const ResolvedQuantizer* ResolvedModule::Find(std::string_view quantizer) const {
  for (const ResolvedQuantizer& own : quantizers) {
    if (own.name == quantizer) return &own;
  }
  return nullptr;
}

Result<ResolvedRecipe> ResolveQuantizers(const Recipe& recipe, const std::vector<QuantizableModule>& modules) {
  if (Status status = CheckParentClasses(recipe, modules); !status) return status.errors();
  Prepared prepared(recipe);
  FindEntriesByHub(modules, &prepared);
  ResolvedRecipe model;
  for (size_t i = 0; i < recipe.entries.size(); ++i) {
    if (prepared.by_hub[i]) model.by_hub.push_back(recipe.entries[i].quantizer_name);
  }
  Errors errors;
  for (const QuantizableModule& module : modules) {
    ResolvedModule resolved;
    resolved.module = module;
    Status status = ResolveModule(prepared, &resolved);
    if (status) status = SetFormat(recipe, &resolved);
    if (!status) errors.insert(errors.end(), status.errors().begin(), status.errors().end());
    model.modules.push_back(std::move(resolved));
  }
  if (!errors.empty()) return errors;
  if (Status status = SetKvCache(recipe, &model); !status) return status.errors();
  if (Status status = CheckThatWeightsAreQuantized(recipe, model); !status) return status.errors();
  if (Status status = CheckThatCacheIsQuantized(recipe, model); !status) return status.errors();
  return model;
}

}  // namespace quantport
