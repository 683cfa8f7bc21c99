#include "plan/memory_modules.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "base/text.h"
#include "mapping/renamer.h"

namespace quantport {
namespace {

// The order of children in the modules of transformers, where it is not that of the alphabet.
constexpr std::array<std::string_view, 41> kOrder = {"model",
                                                     "visual",
                                                     "vision_tower",
                                                     "vision_model",
                                                     "audio_tower",
                                                     "embed_vision",
                                                     "multi_modal_projector",
                                                     "language_model",
                                                     "embed_tokens",
                                                     "layers",
                                                     "self_attn",
                                                     "linear_attn",
                                                     "q_a_proj",
                                                     "q_b_proj",
                                                     "q_proj",
                                                     "kv_a_proj_with_mqa",
                                                     "kv_b_proj",
                                                     "k_proj",
                                                     "v_proj",
                                                     "o_proj",
                                                     "block_sparse_moe",
                                                     "mlp",
                                                     "feed_forward",
                                                     "gate",
                                                     "router",
                                                     "experts",
                                                     "shared_experts",
                                                     "shared_expert",
                                                     "shared_expert_gate",
                                                     "gate_up_proj",
                                                     "gate_proj",
                                                     "up_proj",
                                                     "w1",
                                                     "w3",
                                                     "w2",
                                                     "down_proj",
                                                     "norm",
                                                     "output",
                                                     "score",
                                                     "lm_head",
                                                     "mtp"};

size_t Rank(std::string_view part) {
  const auto found = std::find(kOrder.begin(), kOrder.end(), part);
  // What is not known goes between a block's parts and its experts.
  constexpr size_t kElsewhere = 23;
  return found == kOrder.end() ? 2 * kElsewhere + 1 : 2 * static_cast<size_t>(found - kOrder.begin());
}

bool PartLess(std::string_view a, std::string_view b) {
  if (IsDigits(a) && IsDigits(b)) return a.size() != b.size() ? a.size() < b.size() : a < b;
  const size_t rank_a = Rank(a);
  const size_t rank_b = Rank(b);
  return rank_a != rank_b ? rank_a < rank_b : a < b;
}

bool ModuleLess(const std::string& a, const std::string& b) {
  const auto parts_a = SplitDots(a);
  const auto parts_b = SplitDots(b);
  return std::lexicographical_compare(parts_a.begin(), parts_a.end(), parts_b.begin(), parts_b.end(), PartLess);
}

std::string LastPart(const std::string& module) { return std::string(SplitLeaf(module).leaf); }

bool Contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

bool IsEmbedding(const std::string& module) {
  const std::string leaf = LastPart(module);
  return leaf == "wte" || leaf == "wpe" || leaf == "relative_attention_bias" ||
         (Contains(leaf, "embed") && !leaf.ends_with("_proj") && !leaf.ends_with("_projection"));
}

// Models of transformers 5.17 with a class of their own for the embedding of tokens, by the type of the text model.
constexpr std::array<std::string_view, 25> kOwnEmbeddings = {
    "bart",           "bigbird_pegasus", "biogpt",    "blenderbot", "diffusion_gemma",
    "gemma",          "gemma2",          "gemma3",    "gemma3n",    "gemma4",
    "gemma4_unified", "idefics",         "m2m_100",   "mbart",      "minicpm3",
    "muse_glimmer",   "nllb-moe",        "pegasus_x", "plbart",     "pp_formulanet",
    "seamless_m4t",   "seamless_m4t_v2", "t5gemma2",  "vaultgemma", "xglm"};

bool IsAttention(const std::string& module) {
  const std::string leaf = LastPart(module);
  return (Contains(leaf, "attn") || Contains(leaf, "attention")) && !Contains(leaf, "linear_attn") &&
         !Contains(leaf, "norm");
}

// What projects keys, values, or both: whatever module they stand in has a KV cache, as Nemotron-H's "mixer" does.
constexpr std::array<std::string_view, 5> kKeys = {"k_proj", "key_proj", "key", "wk", "to_k"};
constexpr std::array<std::string_view, 5> kValues = {"v_proj", "value_proj", "value", "wv", "to_v"};
constexpr std::array<std::string_view, 8> kKeysAndValues = {"qkv_proj", "qkv",  "query_key_value",    "c_attn",
                                                            "Wqkv",     "wqkv", "kv_a_proj_with_mqa", "W_pack"};

template <size_t N>
bool AnyOf(const std::array<std::string_view, N>& names, const std::set<std::string>& children) {
  return std::any_of(names.begin(), names.end(),
                     [&](std::string_view name) { return children.contains(std::string(name)); });
}

bool HasKeysAndValues(const std::set<std::string>& linears) {
  return (AnyOf(kKeys, linears) && AnyOf(kValues, linears)) || AnyOf(kKeysAndValues, linears);
}

// DeepSeek-V4's first output projection multiplies group by group, so its class has no quantizers.
bool IsGrouped(const std::string& module) {
  const std::string leaf = LastPart(module);
  return leaf == "o_a_proj" || leaf == "wo_a";
}

// "<container>.<i>.<linear>" -> "<container>"; anything else -> "".
std::string ExpertContainer(const std::string& module) {
  const auto [container, number] = SplitLeaf(SplitLeaf(module).module);
  return IsDigits(number) ? std::string(container) : std::string();
}

// A tensor that loading makes, with what it is made of.
struct Loaded {
  std::string name;
  Array array;  // of logical tensors
};

class Finder {
 public:
  explicit Finder(const MemoryInput& input) : input_(input) {}

  Result<MemoryModel> Find() {
    MakeLogicalTable();
    if (auto status = Load(); !status) return status.errors();
    SortByParameter();
    AddContainers();
    AddMatrices();
    AddTied();
    AddAttentions();
    FindDrafts();
    SortModules();
    DropUnplaced();
    return std::move(model_);
  }

 private:
  // Every weight as one plain tensor of its logical shape, however it is stored.
  void MakeLogicalTable() {
    logical_.shards = input_.table->shards;
    for (size_t u = 0; u < input_.units->size(); ++u) {
      const WeightUnit& unit = (*input_.units)[u];
      if (unit.role != UnitRole::kValue || unit.weight.format == FormatId::kUnrecognized) continue;
      const StoredTensor& first = input_.table->tensors[unit.tensors[0]];
      const DType dtype = unit.weight.format == FormatId::kPlain ? first.info.dtype : DType::kBF16;
      logical_.tensors.push_back({{unit.key, dtype, unit.weight.shape, first.info.begin, first.info.end}, first.shard});
      unit_of_.push_back(u);
    }
  }

  Status Load() {
    auto units = RecognizeUnits(logical_, {});
    if (!units) return units.errors();
    Conversion kept = KeepNames(logical_, *units);
    std::optional<Conversion> loaded;
    if (input_.model != nullptr && !input_.model->transforms.empty()) {
      ConversionInput input{&logical_, &*units, input_.model, input_.legacy, nullptr};
      input.loading = true;
      input.partial = true;
      auto applied = ApplyNames(input);
      if (applied) {
        loaded = std::move(*applied);
      } else {
        model_.warnings.push_back({"names-in-memory-unknown",
                                   "what loading makes of the names could not be found out (" +
                                       applied.errors().front().ToString() + "): recipes are matched against hub names",
                                   0,
                                   {},
                                   {}});
      }
    }
    for (ConvertedTensor& tensor : (loaded ? *loaded : kept).tensors)
      loaded_.push_back({std::move(tensor.name), std::move(tensor.array)});
    return {};
  }

  void SortByParameter() {
    for (size_t i = 0; i < loaded_.size(); ++i) {
      const auto [module, leaf] = SplitLeaf(loaded_[i].name);
      if (loaded_[i].array.shape.size() == 3 && leaf != "weight") stacked_[std::string(module)][std::string(leaf)] = i;
    }
  }

  // As ModelOpt does: a 3-D down_proj, and beside it gate_up_proj, or up_proj without gate_proj.
  void AddContainers() {
    for (const auto& [module, parameters] : stacked_) {
      const auto down = parameters.find("down_proj");
      const bool gated = parameters.contains("gate_up_proj");
      if (down == parameters.end() || (!gated && (!parameters.contains("up_proj") || parameters.contains("gate_proj"))))
        continue;
      const std::string first_name = gated ? "gate_up_proj" : "up_proj";
      const Array& first = loaded_[parameters.at(first_name)].array;
      const Array& second = loaded_[down->second].array;
      if (first.shape[0] != second.shape[0] || first.shape[0] == 0 || first.shape[0] > (1 << 20)) continue;
      MemoryModule container;
      container.module = {module, ModuleKind::kFusedExperts, {}, static_cast<int>(first.shape[0]), gated};
      // As torch.bmm takes them. Both can't fit: one projection's outputs are twice the other's inputs.
      if (gated && GoTogether(first, gated, 1, 2, second)) {
        container.module.kind = ModuleKind::kBatchedExperts;
      } else if (!GoTogether(first, gated, 2, 1, second)) {
        container.obstacle = fmt::format("its experts are kept as [{}] and [{}], shapes that do not go together",
                                         fmt::join(first.shape, ", "), fmt::join(second.shape, ", "));
      }
      containers_[module] = model_.modules.size();
      model_.modules.push_back(std::move(container));
    }
  }

  // Whether the outputs of the first projection, the gate's aside, are the inputs of the second, and the reverse.
  static bool GoTogether(const Array& first, bool gated, size_t inputs, size_t outputs, const Array& second) {
    return first.shape[inputs] == second.shape[outputs] &&
           first.shape[outputs] == (gated ? 2 : 1) * second.shape[inputs];
  }

  void AddMatrices() {
    matrix_of_.assign(logical_.tensors.size(), kNone);
    for (const Loaded& loaded : loaded_) {
      const auto [module, leaf] = SplitLeaf(loaded.name);
      const auto container = containers_.find(std::string(module));
      if (container != containers_.end() && loaded.array.shape.size() == 3) {
        AddStacked(container->second, std::string(leaf), loaded.array);
      } else if (leaf == "weight" && loaded.array.shape.size() >= 2) {
        AddWeight(std::string(module), loaded.array);
      }
    }
  }

  void AddWeight(const std::string& name, const Array& array) {
    if (LooksUpItsOwnWay(name)) return;
    const size_t index = model_.modules.size();
    AddModule(name, array.shape.size() == 2);
    for (const Block& block : array.blocks) AddBlock({index, "", 0}, array, block);
  }

  // Embeddings that are no plain look-up, but scale what they find, have no quantizers.
  bool LooksUpItsOwnWay(const std::string& module) const {
    const std::string leaf = LastPart(module);
    if (input_.model == nullptr || (leaf != "embed_tokens" && leaf != "embed_tokens_per_layer" && leaf != "shared"))
      return false;
    const SubModel* holder = nullptr;
    for (const SubModel& sub : input_.model->submodels) {
      const bool inside = sub.path.empty() || module.starts_with(sub.path + ".");
      if (inside && (holder == nullptr || sub.path.size() >= holder->path.size())) holder = &sub;
    }
    if (holder == nullptr) return false;
    const std::string_view type = holder->model_type;
    return std::find(kOwnEmbeddings.begin(), kOwnEmbeddings.end(),
                     type.substr(0, type.size() - (type.ends_with("_text") ? 5 : 0))) != kOwnEmbeddings.end();
  }

  MemoryModule& AddModule(const std::string& name, bool matrix) {
    MemoryModule module;
    module.module.name = name;
    module.router = matrix && IsRouter(name);
    module.grouped = matrix && IsGrouped(name);
    module.module.kind = !matrix             ? ModuleKind::kConvolution
                         : IsEmbedding(name) ? ModuleKind::kEmbedding
                                             : ModuleKind::kLinear;
    module.module.class_name = module.module.kind == ModuleKind::kEmbedding ? "Embedding" : matrix ? "Linear" : "";
    return model_.modules.emplace_back(std::move(module));
  }

  // A tied head stores nothing, but engines build it, and ask the config what it is. Some classes state patterns of
  // names, which only a live model can resolve.
  void AddTied() {
    if (input_.model == nullptr || !input_.model->tie_word_embeddings.value_or(true)) return;
    std::set<std::string_view> present;
    for (const Loaded& loaded : loaded_) present.insert(loaded.name);
    for (const std::string& name : input_.model->tied_weights) {
      const auto [module, leaf] = SplitLeaf(name);
      if (leaf != "weight" || name.find_first_of("\\(*[") != std::string::npos || !present.insert(name).second)
        continue;
      AddModule(std::string(module), true).obstacle = "its weight is tied to another module's, which stays as it is";
    }
  }

  // A block that is all of a hub weight, or a part of one: the hub's weight is what is stored.
  void AddBlock(const MemoryPlace& place, const Array& array, const Block& block) {
    if (block.tensor == kZeros) return;
    const TensorInfo& info = logical_.tensors[block.tensor].info;
    MemoryModule& module = model_.modules[place.module];
    const std::string hub(SplitLeaf(info.name).module);
    if (std::find(module.hub.begin(), module.hub.end(), hub) == module.hub.end()) module.hub.push_back(hub);
    const size_t first = array.shape.size() - 2;
    const auto bits = static_cast<uint64_t>(DTypeBits(array.dtype));
    const bool across = block.dims.back().extent > 1 && block.dims.back().stride != bits;
    const bool cut =
        info.shape.size() == 2 && block.dims.back().extent != info.shape[1] && block.dims[first].extent > 1;
    if (info.shape.size() == 2 && (across || cut) && module.obstacle.empty())
      module.obstacle = fmt::format("loading turns {} over or cuts its inputs", Printable(info.name));
    if (info.shape.size() == 2) Place(block.tensor, place);
  }

  void Place(uint32_t tensor, const MemoryPlace& place) {
    if (matrix_of_[tensor] == kNone) {
      const TensorInfo& info = logical_.tensors[tensor].info;
      matrix_of_[tensor] = model_.matrices.size();
      model_.matrices.push_back({std::string(SplitLeaf(info.name).module), unit_of_[tensor], true, {}, info.shape, {}});
    }
    std::vector<MemoryPlace>& places = model_.matrices[matrix_of_[tensor]].places;
    if (std::find(places.begin(), places.end(), place) == places.end()) places.push_back(place);
  }

  void AddStacked(size_t container, const std::string& projection, const Array& array) {
    const std::string first = model_.modules[container].module.gated ? "gate_up_proj" : "up_proj";
    if (projection != first && projection != "down_proj") return;
    if (model_.modules[container].module.kind == ModuleKind::kBatchedExperts)
      return AddBatched(container, projection, array);
    const bool expanded = std::all_of(array.blocks.begin(), array.blocks.end(), [&](const Block& block) {
      return block.tensor != kZeros && logical_.tensors[block.tensor].info.shape.size() == 2;
    });
    for (const Block& block : array.blocks) {
      if (block.tensor == kZeros) continue;
      if (expanded) AddBlock({container, projection, block.dims[0].origin}, array, block);
      AddHub(container, std::string(SplitLeaf(logical_.tensors[block.tensor].info.name).module));
    }
    if (expanded || !model_.modules[container].obstacle.empty()) return;
    const std::string& name = model_.modules[container].module.name;
    for (uint64_t expert = 0; expert < array.shape[0]; ++expert) {
      const Array matrix = Select(array, 0, expert);
      if (projection != "gate_up_proj") {
        AddExpert({container, projection, expert}, name, projection, matrix);
        continue;
      }
      const uint64_t half = matrix.shape[0] / 2;
      AddExpert({container, projection, expert}, name, "gate_proj", Slice(matrix, 0, 0, half));
      AddExpert({container, projection, expert}, name, "up_proj", Slice(matrix, 0, half, half));
    }
  }

  // All experts in one tensor, as the hub has it: its parameter keeps its name.
  void AddBatched(size_t container, const std::string& projection, const Array& array) {
    const bool stored = array.blocks.size() == 1 && array.blocks[0].tensor != kZeros && RunCount(array) == 1 &&
                        logical_.tensors[array.blocks[0].tensor].info.shape == array.shape;
    if (!stored) {
      model_.modules[container].obstacle =
          fmt::format("loading puts its {} together, with the inputs before the outputs", projection);
      return;
    }
    const uint32_t tensor = array.blocks[0].tensor;
    const std::string& name = logical_.tensors[tensor].info.name;
    AddHub(container, std::string(SplitLeaf(name).module));
    const std::vector<uint64_t> shape = {array.shape[0] * array.shape[1], array.shape[2]};
    model_.matrices.push_back({name, unit_of_[tensor], true, {}, shape, {{container, projection, 0}}, array.shape[0]});
  }

  void AddHub(size_t module, const std::string& hub) {
    std::vector<std::string>& all = model_.modules[module].hub;
    if (std::find(all.begin(), all.end(), hub) == all.end()) all.push_back(hub);
  }

  // A linear of an expert that the hub keeps in one tensor with others.
  void AddExpert(const MemoryPlace& place, const std::string& container, const std::string& linear, Array array) {
    HubMatrix matrix;
    matrix.name = HubExpert(container, place.expert, linear, array.blocks[0].tensor);
    matrix.unit = unit_of_[array.blocks[0].tensor];
    matrix.whole = false;
    matrix.shape = array.shape;
    for (Block& block : array.blocks) {
      if (block.tensor == kZeros) continue;
      const WeightUnit& unit = (*input_.units)[unit_of_[block.tensor]];
      if (unit.weight.format != FormatId::kPlain) {
        model_.modules[place.module].obstacle =
            fmt::format("its experts are stacked and quantized already, as {}", FormatName(unit.weight.format));
      }
      block.tensor = unit.tensors[0];
    }
    matrix.array = std::move(array);
    matrix.places = {place};
    model_.matrices.push_back(std::move(matrix));
  }

  // The name that engines load: below the hub's path of the container.
  std::string HubExpert(const std::string& container, uint64_t expert, const std::string& linear, uint32_t tensor) {
    const auto [it, fresh] = hub_containers_.emplace(container, "");
    if (fresh) it->second = HubContainer(container, tensor);
    return fmt::format("{}.{}.{}", it->second, expert, linear);
  }

  std::string HubContainer(const std::string& container, uint32_t tensor) const {
    if (input_.model != nullptr) {
      const auto renamer = Renamer::Create(input_.model->transforms, Renamer::Direction::kSave);
      const std::string linear = container + ".0.down_proj.weight";
      const RenamedKey renamed = renamer ? renamer->Probe(linear) : RenamedKey();
      if (renamer && renamed.converter < 0 && renamed.name.ends_with(".0.down_proj.weight"))
        return renamed.name.substr(0, renamed.name.size() - std::string_view(".0.down_proj.weight").size());
    }
    return std::string(SplitLeaf(logical_.tensors[tensor].info.name).module);
  }

  // A block with experts, whose gate scores them.
  bool IsRouter(const std::string& module) {
    const auto [block, leaf] = SplitLeaf(module);
    if (leaf != "gate" && leaf != "router") return false;
    if (!blocks_found_) FindBlocks();
    return blocks_.contains(std::string(block));
  }

  void FindBlocks() {
    blocks_found_ = true;
    for (const auto& [container, index] : containers_) blocks_.insert(std::string(SplitLeaf(container).module));
    for (const Loaded& loaded : loaded_) {
      const std::string container = ExpertContainer(std::string(SplitLeaf(loaded.name).module));
      if (LastPart(container) == "experts") blocks_.insert(std::string(SplitLeaf(container).module));
    }
  }

  void AddAttentions() {
    std::map<std::string, std::set<std::string>> linears;  // of each module, the names of those below it
    for (const MemoryModule& module : model_.modules) {
      const auto [parent, leaf] = SplitLeaf(module.module.name);
      if (module.module.kind == ModuleKind::kLinear) linears[std::string(parent)].emplace(leaf);
    }
    for (const auto& [name, children] : linears) {
      if (!IsAttention(name) && !HasKeysAndValues(children)) continue;
      MemoryModule module;
      module.module = {name, ModuleKind::kAttention, {}, 0, true};
      model_.modules.push_back(std::move(module));
    }
  }

  void FindDrafts() {
    if (input_.drafts == nullptr) return;
    for (MemoryModule& module : model_.modules) module.draft = input_.drafts->PathOf(module.module.name);
  }

  void SortModules() {
    std::vector<size_t> order(model_.modules.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
      return ModuleLess(model_.modules[a].module.name, model_.modules[b].module.name);
    });
    std::vector<size_t> position(order.size());
    std::vector<MemoryModule> sorted;
    for (size_t i = 0; i < order.size(); ++i) {
      position[order[i]] = i;
      sorted.push_back(std::move(model_.modules[order[i]]));
    }
    model_.modules = std::move(sorted);
    for (HubMatrix& matrix : model_.matrices) {
      for (MemoryPlace& place : matrix.places) place.module = position[place.module];
    }
    for (const MemoryModule& module : model_.modules) {
      if (!module.hub.empty()) model_.hub_names[module.module.name] = module.hub;
    }
  }

  // A weight of which a part goes nowhere in memory is left as it is.
  void DropUnplaced() {
    std::erase_if(model_.matrices, [](const HubMatrix& matrix) { return matrix.places.empty(); });
  }

  static constexpr size_t kNone = SIZE_MAX;

  const MemoryInput& input_;
  TensorTable logical_;
  std::vector<size_t> unit_of_;  // of each logical tensor
  std::vector<Loaded> loaded_;
  std::map<std::string, std::map<std::string, size_t>> stacked_;  // module -> parameter -> loaded
  std::map<std::string, size_t> containers_;
  std::map<std::string, std::string> hub_containers_;
  std::vector<size_t> matrix_of_;  // of each logical tensor
  bool blocks_found_ = false;
  std::set<std::string> blocks_;
  MemoryModel model_;
};

}  // namespace

Result<MemoryModel> FindMemoryModules(const MemoryInput& input) { return Finder(input).Find(); }

}  // namespace quantport
