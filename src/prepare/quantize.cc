#include "prepare/quantize.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "base/text.h"
#include "codec/codec.h"
#include "config/references.h"
#include "dialect/claims.h"
#include "dialect/modelopt_files.h"
#include "dialect/modelopt_formats.h"
#include "layout/misfits.h"
#include "layout/recognize.h"
#include "load/configs.h"
#include "load/load.h"
#include "load/recipes.h"
#include "mapping/renamer.h"
#include "prepare/casts.h"
#include "prepare/gpt_oss.h"
#include "prepare/plain_config.h"
#include "prepare/sidecars.h"
#include "verify/compare_claims.h"

namespace quantport {
namespace {

std::string_view KindName(const MemoryModule& module) {
  if (module.router) return "router";
  switch (module.module.kind) {
    case ModuleKind::kLinear:
      return "linear";
    case ModuleKind::kConvolution:
      return "convolution";
    case ModuleKind::kEmbedding:
      return "embedding";
    case ModuleKind::kInputOnly:
      return "other";
    case ModuleKind::kFusedExperts:
    case ModuleKind::kBatchedExperts:
      return "experts";
    case ModuleKind::kAttention:
      return "attention";
  }
  return "";
}

// The checkpoint as every command here begins with it.
struct Opened {
  Checkpoint checkpoint;
  ConfigFiles configs;
  std::vector<WeightUnit> units;
  std::vector<Warning> warnings;  // where configs and tensors differ and no byte is read by it
};

// Tensors of a method that is not known may not even look quantized: torchao's and HQQ's have names of their own.
Status CheckMethodIsKnown(const Opened& opened) {
  for (const auto& [file, claims] : opened.configs.claims) {
    const bool shared = claims.method.empty() || claims.method == "modelopt" || claims.method == "compressed-tensors" ||
                        claims.method == "quark";
    const bool known = std::any_of(claims.schemes.begin(), claims.schemes.end(),
                                   [](const WeightScheme& scheme) { return !scheme.formats.empty(); });
    const bool any = std::any_of(opened.units.begin(), opened.units.end(), [](const WeightUnit& unit) {
      return unit.role == UnitRole::kValue && unit.weight.format != FormatId::kPlain;
    });
    if (shared || known || any) continue;
    return Error{ErrorKind::kQuantConversionUnsupported,
                 fmt::format("quant_method is {}, and no weight is stored in a format that is known", claims.method),
                 file,
                 {},
                 "dequantize it with the tool that wrote it"};
  }
  return {};
}

template <typename Options>
Result<Opened> Open(const Storage& storage, const Options& options) {
  Opened opened;
  auto checkpoint = OpenCheckpoint(
      storage, options.input.string(),
      {.repair_index = options.repair_index, .all_files = options.all_files, .follow_links = options.follow_links});
  if (!checkpoint) return checkpoint.errors();
  opened.checkpoint = std::move(*checkpoint);
  auto configs = ReadConfigs(opened.checkpoint);
  if (!configs) return configs.errors();
  opened.configs = std::move(*configs);
  auto units = RecognizeCheckpoint(opened.checkpoint, opened.configs);
  if (!units) return units.errors();
  opened.units = std::move(*units);
  MatchBudget budget{.cancel = options.cancel};
  const auto claims = CompareClaims(opened.configs, opened.units, &budget);
  if (!claims) return claims.errors();
  opened.warnings = WarningsOf(claims->differences, true);
  Errors problems = ContradictionsOf(claims->differences);
  // Bytes that mean nothing known would stay codes while the config stops saying what they were.
  for (Error& error : UnknownWeightErrors(FindUnknownWeights(opened.units, opened.configs.scheme.quantized),
                                          ErrorKind::kQuantConversionUnsupported))
    problems.push_back(std::move(error));
  if (!problems.empty()) return problems;
  if (auto known = CheckMethodIsKnown(opened); !known) return known.errors();
  return opened;
}

PlanOptions PlanOptionsOf(const Checkpoint& checkpoint, std::optional<uint64_t> max_shard_bytes) {
  PlanOptions options;
  options.max_shard_bytes = max_shard_bytes;
  options.index = checkpoint.index ? &*checkpoint.index : nullptr;
  options.sharded = checkpoint.sharded;
  return options;
}

// The precision that the model runs in, for weights that are stored quantized.
DType PlainDType(const std::string& config) {
  return StatedDType(config) == "float16" ? DType::kF16 : StatedDType(config) == "float32" ? DType::kF32 : DType::kBF16;
}

// All that says how the input is quantized is replaced or goes.
void DropQuantizationFiles(const ConfigFiles& configs, std::vector<std::string>* sidecars) {
  std::erase_if(*sidecars, [&](const std::string& name) {
    return name != kConfigName && configs.quantization_files.contains(name);
  });
}

// Recipes switch off what Qwen3-Next and its kin call mtp; who asks for draft layers wants them all the same.
void KeepDraftLayersIn(Recipe* recipe) {
  std::erase_if(recipe->entries, [](const RecipeEntry& entry) {
    return !entry.enable && entry.cfg.empty() && entry.quantizer_name.find("mtp") != std::string::npos;
  });
}

void Summarize(const Opened& opened, PreparedQuantize* prepared) {
  QuantizeReport& report = prepared->report;
  report.notes.insert(report.notes.begin(), opened.checkpoint.notes.begin(), opened.checkpoint.notes.end());
  report.warnings.insert(report.warnings.begin(), opened.warnings.begin(), opened.warnings.end());
  report.left_out = opened.checkpoint.left_out;
  report.input_tensors = opened.checkpoint.table.tensors.size();
  report.bytes_before = opened.checkpoint.table.TotalBytes();
  for (const PlannedFile& file : prepared->plan.files.files) report.output_tensors += file.tensors.size();
  report.bytes = prepared->plan.files.TotalBytes();
  report.files = prepared->plan.files.files.size();
  for (const PlannedMatrix& matrix : prepared->plan.matrices) {
    report.weights.push_back({matrix.name, matrix.in_memory,
                              std::string(ModelOptFormatName(matrix.target.encoding.format)), matrix.rows,
                              matrix.columns, matrix.bytes_before, matrix.bytes_after});
  }
}

class Preparer {
 public:
  Preparer(const QuantizeOptions& options, const Storage& storage, bool only_plan)
      : options_(options), storage_(storage), only_plan_(only_plan) {}

  Result<PreparedQuantize> Prepare() {
    if (auto s = ReadRecipe(); !s) return s.errors();
    if (auto s = ReadCheckpoint(); !s) return s.errors();
    if (auto s = FindModel(); !s) return s.errors();
    if (auto s = FindModules(); !s) return s.errors();
    if (auto s = Resolve(); !s) return s.errors();
    if (auto s = LayOut(); !s) return s.errors();
    if (auto s = WriteConfigs(); !s) return s.errors();
    Report();
    if (auto s = PlanCopies(prepared_.checkpoint, &prepared_.plan.files); !s) return s.errors();
    return std::move(prepared_);
  }

 private:
  Status ReadRecipe() {
    const RecipeSources sources = SourcesOf(options_.recipe.folders);
    auto recipe = LoadRecipe(options_.recipe.name, sources);
    if (!recipe) return recipe.errors();
    recipe_ = std::move(*recipe);
    if (auto s = CheckAlgorithms(recipe_); !s) return s;
    if (options_.recipe.kv_cache) {
      auto entries = LoadKvCache(*options_.recipe.kv_cache, sources);
      if (!entries) return entries.errors();
      ReplaceKvCache(*entries, &recipe_);
    }
    if (options_.quantize_mtp) KeepDraftLayersIn(&recipe_);
    if (!options_.calibration) return {};
    auto calibration = ReadCalibration(storage_, options_.calibration->string());
    if (!calibration) return calibration.errors();
    calibration_ = std::move(*calibration);
    return {};
  }

  Status ReadCheckpoint() {
    auto opened = Open(storage_, options_);
    if (!opened) return opened.errors();
    opened_ = std::move(*opened);
    return {};
  }

  // A class that the mapping does not know is quantized by the names it has.
  Status FindModel() {
    auto model = LoadModel(opened_.configs.config_text, (options_.input / kConfigName).string(), options_.mapping);
    QuantizeReport& report = prepared_.report;
    if (model) {
      report.architecture = model->resolved.architecture;
      report.mapping = model->version;
      if (auto note = ClassNote(model->resolved)) report.notes.push_back(std::move(*note));
      if (model->resolved.unmapped) {
        report.warnings.push_back(*model->resolved.unmapped);
        report.warnings.back().text += ", and the recipe is matched against the checkpoint's own names";
      } else {
        model_ = std::move(*model);
      }
      return {};
    }
    const bool unknown = std::all_of(model.errors().begin(), model.errors().end(),
                                     [](const Error& error) { return error.kind == ErrorKind::kUnknownArchitecture; });
    if (!unknown) return model.errors();
    report.warnings.push_back(
        {"unknown-architecture",
         fmt::format("{}: the recipe is matched against the checkpoint's own names", model.errors()[0].ToString()),
         0,
         {},
         {}});
    return {};
  }

  Status FindModules() {
    const DraftLayers drafts(opened_.configs.config_text);
    MemoryInput input;
    input.table = &opened_.checkpoint.table;
    input.units = &opened_.units;
    input.drafts = &drafts;
    if (model_) {
      input.model = &model_->resolved;
      input.legacy = model_->legacy;
    }
    auto memory = FindMemoryModules(input);
    if (!memory) return memory.errors();
    memory_ = std::move(*memory);
    Append(memory_.warnings, &prepared_.report.warnings);
    return {};
  }

  // What no recipe is asked about: routers, linears in groups, and draft layers, of which engines build the inputs and
  // heads unquantized.
  bool IsLeftOut(const MemoryModule& module) const {
    return module.router || module.grouped ||
           (!module.draft.empty() && (!options_.quantize_mtp || IsUsuallyLeftAlone(module.module.name)));
  }

  Status Resolve() {
    std::vector<QuantizableModule> modules;
    for (size_t m = 0; m < memory_.modules.size(); ++m) {
      if (IsLeftOut(memory_.modules[m])) continue;
      modules.push_back(memory_.modules[m].module);
      module_index_.push_back(m);
    }
    AddHubModules(&modules);
    auto resolved = ResolveQuantizers(recipe_, modules);
    if (!resolved) return resolved.errors();
    resolved_ = std::move(*resolved);
    NotePatternsByHub();
    auto kept = KeepGptOssForm(opened_.configs.config_text, recipe_.name, &resolved_, &prepared_.report.warnings);
    if (!kept) return kept.errors();
    gpt_oss_form_ = *kept;
    auto chosen = ChooseFormats(
        {&recipe_, &memory_, &resolved_, module_index_, options_.calibration ? &calibration_ : nullptr, only_plan_});
    if (!chosen) return chosen.errors();
    chosen_ = std::move(*chosen);
    Append(chosen_.warnings, &prepared_.report.warnings);
    const size_t unused = calibration_.size() - chosen_.used.size();
    if (unused > 0)
      prepared_.report.notes.push_back(fmt::format("{} entries of the calibration were not needed", unused));
    return {};
  }

  void AddHubModules(std::vector<QuantizableModule>* modules) const {
    if (std::none_of(recipe_.entries.begin(), recipe_.entries.end(), MayNameHub)) return;
    std::map<size_t, QuantizableModule*> by_index;
    for (size_t i = 0; i < modules->size(); ++i) by_index.emplace(module_index_[i], &(*modules)[i]);
    for (const HubMatrix& matrix : memory_.matrices) {
      for (const MemoryPlace& place : matrix.places) {
        const auto found = by_index.find(place.module);
        if (found != by_index.end()) found->second->hub[{place.projection, place.expert}].push_back(matrix.name);
      }
    }
  }

  void NotePatternsByHub() {
    if (resolved_.by_hub.empty()) return;
    Warning note;
    note.text = "patterns of the recipe match no module in memory, and are matched with the hub's names";
    for (const std::string& pattern : resolved_.by_hub) AddName(pattern, &note);
    prepared_.report.notes.push_back(note.ToString());
  }

  Status LayOut() {
    QuantizeInput input;
    input.table = &opened_.checkpoint.table;
    input.units = &opened_.units;
    input.memory = &memory_;
    input.choices = chosen_.choices;
    input.cache_scales = chosen_.cache_scales;
    // Two quantizations in one checkpoint are described by no config.
    input.dequantize_rest = true;
    input.why_unread = WhyNotDecoded;
    input.zeros_less_one = opened_.configs.scheme.zeros_less_one;
    input.plain_dtype = PlainDType(opened_.configs.config_text);
    auto plan = MakeQuantizePlan(input, options_.input, PlanOptionsOf(opened_.checkpoint, options_.max_shard_bytes));
    if (!plan) return plan.errors();
    prepared_.plan = std::move(*plan);
    prepared_.plan.computing = {options_.arithmetic == QuantizeArithmetic::kCuda, options_.bit_exact_zeros,
                                options_.allow_nonfinite};
    return {};
  }

  // What the recipe does to each module, convolutions and embeddings aside, which are left alone.
  std::vector<QuantizedModule> QuantizedModules() const {
    std::vector<QuantizedModule> modules;
    for (size_t i = 0; i < resolved_.modules.size(); ++i) {
      const ResolvedModule& module = resolved_.modules[i];
      if (module.module.kind == ModuleKind::kAttention) continue;
      const bool alone = module.module.kind == ModuleKind::kConvolution || module.module.kind == ModuleKind::kEmbedding;
      modules.push_back({module.module.name, alone ? FormatId::kPlain : module.format, module.block_size});
    }
    for (const MemoryModule& module : memory_.modules) {
      if (IsLeftOut(module) && module.module.kind != ModuleKind::kAttention)
        modules.push_back({module.module.name, FormatId::kPlain, 0});
    }
    return modules;
  }

  // ModelOpt's files in in-memory names, and those rewritten by meaning.
  Status WriteConfigs() {
    if (gpt_oss_form_) {
      const Json quantization = GptOssQuantization(memory_, resolved_);
      ReportExcluded(quantization, "modules_to_not_convert");
      return WriteConfig(quantization);
    }
    const Json in_memory =
        HfQuantConfig(QuantizedModules(), resolved_.kv_cache, [](const std::string& module) { return module; });
    if (in_memory.is_null()) return {};
    ReferenceRewriter rewriter(memory_.hub_names, [this](const std::string& module) { return HubName(module); });
    MatchBudget budget{.cancel = options_.cancel};
    auto text = RewriteReferences(DumpJson(in_memory, kModelOptStyle), kQuantConfigName, &rewriter, &budget);
    if (!text) return text.errors();
    auto json = ParseJson(*text, kQuantConfigName, ErrorKind::kInvalidConfig);
    if (!json) return json.errors();
    prepared_.plan.files.texts.emplace(kQuantConfigName, DumpJson(*json, kModelOptStyle));
    ReportExcluded(json->at("quantization"), "exclude_modules");
    return WriteConfig(QuantizationConfig(*json));
  }

  void ReportExcluded(const Json& quantization, const std::string& key) {
    if (const auto excluded = quantization.find(key); excluded != quantization.end())
      prepared_.report.exclude_modules = excluded->get<std::vector<std::string>>();
  }

  Status WriteConfig(const Json& quantization) {
    const std::string file = (options_.input / kConfigName).string();
    std::string plain = opened_.configs.config_text;
    if (opened_.configs.claims.contains(std::string(kConfigName))) {
      auto without = WithoutQuantization(plain, file);
      if (!without) return without.errors();
      plain = std::move(*without);
    }
    auto config = WithQuantizationConfig(plain, file, quantization);
    if (!config) return config.errors();
    prepared_.plan.files.texts.emplace(kConfigName, std::move(*config));
    return {};
  }

  std::string HubName(const std::string& module) {
    // transformers takes back the renames that loading used, and a tied head was not loaded.
    if (!model_ || IsTied(module)) return module;
    if (!reverse_) {
      auto renamer = Renamer::Create(model_->resolved.transforms, Renamer::Direction::kSave);
      if (!renamer) return module;
      reverse_ = std::move(*renamer);
    }
    const RenamedKey renamed = reverse_->Probe(module + ".weight");
    return renamed.converter >= 0 ? module : std::string(SplitLeaf(renamed.name).module);
  }

  bool IsTied(const std::string& module) const {
    const std::string weight = module + ".weight";
    const auto& tied = model_->resolved.tied_weights;
    return std::find(tied.begin(), tied.end(), weight) != tied.end() && !memory_.hub_names.contains(module);
  }

  static void Append(const std::vector<Warning>& from, std::vector<Warning>* to) {
    to->insert(to->end(), from.begin(), from.end());
  }

  void Report() {
    QuantizeReport& report = prepared_.report;
    report.recipe = recipe_.name;
    report.kv_cache = resolved_.kv_cache;
    std::map<std::string, std::pair<std::string, uint64_t>> formats;
    for (const ResolvedModule& module : resolved_.modules)
      formats[module.module.name] = {std::string(ModelOptFormatName(module.format)),
                                     static_cast<uint64_t>(module.block_size)};
    for (const MemoryModule& module : memory_.modules) {
      const auto& [format, block] = formats[module.module.name];
      const bool experts = module.module.experts > 0;
      report.modules.push_back({module.module.name, std::string(KindName(module)), format, block,
                                static_cast<uint64_t>(module.module.experts), module.hub});
      if (experts) ReportContainer(module.module);
    }
    NoteDraftLayers();
    Append(WarnOfRequantizing(prepared_.plan), &report.warnings);
    Summarize(opened_, &prepared_);
    prepared_.checkpoint = std::move(opened_.checkpoint);
    DropQuantizationFiles(opened_.configs, &prepared_.checkpoint.sidecars);
  }

  void NoteDraftLayers() {
    std::set<std::string> paths;
    for (const MemoryModule& module : memory_.modules) {
      if (!module.draft.empty() && !options_.quantize_mtp) paths.insert(module.draft);
    }
    if (paths.empty()) return;
    Warning note;
    note.text = "draft (MTP) layers stay unquantized, unless --quantize-mtp leaves them to the recipe";
    for (const std::string& path : paths) AddName(path, &note);
    prepared_.report.notes.push_back(note.ToString());
  }

  // With the class of the sub-model that holds it, the nearest thing to its own that files tell.
  void ReportContainer(const QuantizableModule& container) {
    std::string holder;
    size_t longest = 0;
    for (size_t i = 0; model_ && i < model_->resolved.submodels.size(); ++i) {
      const SubModel& sub = model_->resolved.submodels[i];
      const bool inside = sub.path.empty() || container.name.starts_with(sub.path + ".");
      if (!inside || (sub.path.size() < longest && !holder.empty())) continue;
      longest = sub.path.size();
      holder = sub.class_name;
    }
    containers_.push_back(container.name);
    if (containers_.size() > 1) return;
    prepared_.report.notes.push_back(
        fmt::format("experts that are stacked in memory: {} and others like it, {} experts {} a gate{}{}",
                    Printable(container.name), container.experts, container.gated ? "with" : "without",
                    holder.empty() ? "" : " in ", Printable(holder)));
  }

  const QuantizeOptions& options_;
  const Storage& storage_;
  const bool only_plan_;
  PreparedQuantize prepared_;
  Recipe recipe_;
  Calibration calibration_;
  Opened opened_;
  std::optional<ModelMapping> model_;
  MemoryModel memory_;
  ResolvedRecipe resolved_;
  bool gpt_oss_form_ = false;         // experts become MXFP4 in blocks, which gpt-oss's own config describes
  std::vector<size_t> module_index_;  // of each resolved module, in memory_
  ChosenFormats chosen_;
  std::optional<Renamer> reverse_;
  std::vector<std::string> containers_;
};

}  // namespace

Result<PreparedQuantize> PrepareQuantize(const QuantizeOptions& options, const Storage& storage, bool only_plan) {
  return Preparer(options, storage, only_plan).Prepare();
}

Result<PreparedQuantize> PrepareDequantize(const DequantizeOptions& options, const Storage& storage) {
  auto opened = Open(storage, options);
  if (!opened) return opened.errors();
  const MemoryModel memory;
  QuantizeInput input;
  input.table = &opened->checkpoint.table;
  input.units = &opened->units;
  input.memory = &memory;
  input.dequantize_rest = true;
  input.why_unread = WhyNotDecoded;
  input.zeros_less_one = opened->configs.scheme.zeros_less_one;
  input.plain_dtype = PlainDType(opened->configs.config_text);
  PreparedQuantize prepared;
  auto plan = MakeQuantizePlan(input, options.input, PlanOptionsOf(opened->checkpoint, options.max_shard_bytes));
  if (!plan) return plan.errors();
  prepared.plan = std::move(*plan);
  auto config = WithoutQuantization(opened->configs.config_text, (options.input / kConfigName).string());
  if (!config) return config.errors();
  if (*config != opened->configs.config_text) prepared.plan.files.texts.emplace(kConfigName, std::move(*config));
  Summarize(*opened, &prepared);
  prepared.checkpoint = std::move(opened->checkpoint);
  DropQuantizationFiles(opened->configs, &prepared.checkpoint.sidecars);
  if (auto s = PlanCopies(prepared.checkpoint, &prepared.plan.files); !s) return s.errors();
  return prepared;
}

}  // namespace quantport
