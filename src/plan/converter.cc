#include "plan/converter.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "base/text.h"
#include "plan/assemble.h"
#include "plan/expert_numbers.h"
#include "plan/operations.h"
#include "plan/siblings.h"
#include "plan/spelling.h"

namespace quantport {
namespace {

class Converter {
 public:
  Converter(const ConversionInput& input, const Grouping& grouping, const NameLookup& lookup)
      : input_(input),
        units_(*input.units),
        grouping_(grouping),
        siblings_(units_, grouping),
        lookup_(lookup),
        stacked_(*input.table, units_, input.model->submodels) {
    produced_.resize(grouping.groups.size());
    conversion_.tensors.reserve(input.table->tensors.size());
    conversion_.weights.reserve(units_.size());
    conversion_.shared.merge_max = input.merge_max;
    renamed_.resize(units_.size());
  }

  Result<Conversion> Run() {
    for (size_t g = 0; g < grouping_.groups.size(); ++g) {
      const Group& group = grouping_.groups[g];
      const bool renamed = group.converter == nullptr && !(input_.stack_experts && IsAssembled(group));
      auto status = renamed ? Rename(g, group) : Convert(g, group);
      if (!status) Report(std::move(status.errors()), group);
    }
    for (const WeightUnit& unit : units_) {
      if (unit.role == UnitRole::kCacheScale) FollowWeight(unit);
    }
    for (size_t unit = 0; unit < units_.size(); ++unit) {
      if (renamed_[unit]) conversion_.renamed += units_[unit].tensors.size();
    }
    CheckCollisions();
    if (!input_.partial) stacked_.Check(&errors_, &conversion_.warnings);
    if (!errors_.empty()) return std::move(errors_);
    return std::move(conversion_);
  }

 private:
  static Error Unsupported(std::string message, std::string hint = {}) {
    return Error{ErrorKind::kQuantConversionUnsupported, std::move(message), {}, {}, std::move(hint)};
  }

  // An operation's error names no tensor; the group's first one is the best a user can look up.
  void Report(Errors errors, const Group& group) {
    std::string tensor = group.rule_name;
    std::string shard;
    for (const auto& inputs : group.inputs) {
      if (inputs.empty()) continue;
      const WeightUnit& unit = units_[inputs[0].unit];
      tensor = unit.key;
      shard = input_.table->shards[input_.table->tensors[unit.tensors[0]].shard].name;
      break;
    }
    for (Error& error : errors) {
      if (error.tensor.empty()) error.tensor = tensor;
      if (error.file.empty()) error.file = shard;
      // The parameters of a container mostly lack the same experts.
      if (said_.insert(error.tensor + '\n' + error.message).second) errors_.push_back(std::move(error));
    }
  }

  Status Rename(size_t g, const Group& group) {
    for (const GroupInput& input : group.inputs[0]) {
      const WeightUnit& unit = units_[input.unit];
      auto name = group.Name(0, std::nullopt);
      if (!name) return name.errors();
      // The hub keeps these experts in one tensor: engines load 2-D linears below its container's path.
      std::string key = input.piece ? ExpertBelow(*name, unit, *input.piece) : *name;
      auto weight = WithBias(input.unit, input.piece.has_value());
      if (!weight) return weight.errors();
      if (auto status = Emit(g, std::move(key), unit.style, std::move(*weight), unit.role, {input.unit}); !status)
        return status;
    }
    return {};
  }

  static std::string ExpertBelow(const std::string& hub_parameter, const WeightUnit& unit, const ExpertPiece& piece) {
    const std::string container(SplitLeaf(hub_parameter).module);
    return fmt::format("{}.{}.{}.weight", container, piece.index, LinearOf(unit));
  }

  Status Convert(size_t g, const Group& group) {
    if (auto status = CheckInputs(group); !status) return status;
    auto strands = MakeStrands(group);
    if (!strands) return strands.errors();
    std::vector<size_t> sources;
    for (const auto& inputs : group.inputs) {
      for (const GroupInput& input : inputs) sources.push_back(input.unit);
    }
    auto results = group.converter == nullptr ? std::move(strands) : RunConverter(group, std::move(*strands));
    if (!results) return results.errors();
    if (results->size() > group.targets)
      return Unsupported("the operations give more tensors than there are names for");
    const bool same = sources.size() == 1 && results->size() == 1 && (*results)[0].size() == 1 &&
                      IsUntouched((*results)[0][0].weight, units_[sources[0]].weight);
    if (!group.inputs[0][0].piece && !same) conversion_.cut += sources.size();
    CountExperts(group, *results);
    for (size_t target = 0; target < results->size(); ++target) {
      if (auto status = EmitList(g, group, target, (*results)[target], sources); !status) return status;
    }
    return {};
  }

  // True where the operations changed neither shape nor the order of any stored byte.
  static bool IsUntouched(const LogicalWeight& result, const LogicalWeight& source) {
    return result.shape == source.shape &&
           std::all_of(result.parts.begin(), result.parts.end(), [](const StoredPart& part) {
             const auto& blocks = part.array.blocks;
             return blocks.size() == 1 && blocks[0].offset == 0 && blocks[0].step == 0 && RunCount(part.array) <= 1;
           });
  }

  // Pieces of an expert container that the other side keeps in one tensor are put together first.
  Result<Strands> MakeStrands(const Group& group) {
    const bool lists = group.converter != nullptr && TakesLists(group.converter->operations);
    const bool assemble = input_.stack_experts && IsAssembled(group);
    Strands strands;
    for (std::vector<GroupInput> inputs : group.inputs) {
      if (lists) {
        std::sort(inputs.begin(), inputs.end(), [&](const GroupInput& a, const GroupInput& b) {
          return DotNaturalLess(units_[a.unit].key, units_[b.unit].key);
        });
      }
      std::vector<Entry> strand;
      for (size_t i = 0; i < inputs.size(); ++i) {
        auto weight = WithBias(inputs[i].unit, inputs[i].piece.has_value());
        if (!weight) return weight.errors();
        strand.push_back({std::move(*weight), inputs[i].piece, lists ? std::optional<uint64_t>(i) : std::nullopt,
                          inputs[i].piece ? std::optional(inputs[i].unit) : std::nullopt});
      }
      if (assemble) {
        auto whole = AssembleExperts(strand, &conversion_.shared);
        if (!whole) return whole.errors();
        strand = {Entry{std::move(*whole), std::nullopt, std::nullopt, std::nullopt}};
      }
      strands.push_back(std::move(strand));
    }
    return strands;
  }

  static bool IsAssembled(const Group& group) {
    return group.inputs[0][0].piece && (group.converter == nullptr || !SplitsExperts(group.converter->operations));
  }

  Result<Strands> RunConverter(const Group& group, Strands strands) {
    OperationContext context{&group.converter->source_patterns, &group.converter->target_patterns, TargetShapes(group),
                             input_.loading, &conversion_.shared};
    return RunOperations(std::move(strands), group.converter->operations, context);
  }

  Status EmitList(size_t g, const Group& group, size_t target, std::vector<Entry>& entries,
                  const std::vector<size_t>& sources) {
    const WeightUnit& first = units_[sources[0]];
    const bool listed = !entries.empty() && entries[0].index.has_value();
    if (!group.inputs[0][0].piece && listed && group.origin != nullptr &&
        group.origin->hub[target].size() != entries.size()) {
      return Error{ErrorKind::kReferenceMismatch,
                   fmt::format("the export stacks {} experts, the reference has {}", entries.size(),
                               group.origin->hub[target].size()),
                   {},
                   {},
                   "is it the checkpoint this export was made from?"};
    }
    for (Entry& entry : entries) {
      auto name = group.Name(target, entry.index);
      if (!name) return name.errors();
      auto status = Emit(g, std::move(*name), first.style, std::move(entry.weight), first.role,
                         entry.unit ? std::vector{*entry.unit} : sources);
      if (!status) return status;
    }
    return {};
  }

  // The reference's shapes of a group's results, where it has one tensor for each.
  std::vector<const std::vector<uint64_t>*> TargetShapes(const Group& group) const {
    std::vector<const std::vector<uint64_t>*> shapes(group.targets, nullptr);
    if (group.origin == nullptr || input_.reference == nullptr) return shapes;
    for (size_t target = 0; target < group.targets; ++target) {
      if (group.origin->hub[target].size() != 1) continue;
      const auto shape = input_.reference->logical_shapes.find(group.origin->hub[target][0]);
      if (shape != input_.reference->logical_shapes.end()) shapes[target] = &shape->second;
    }
    return shapes;
  }

  // Loading dequantizes where scales are there; experts that are not quantized have the first tensor only.
  static bool TakesOneAlone(const Group& group) {
    return group.converter != nullptr && !group.converter->operations.empty() &&
           std::holds_alternative<Inkling2LoopDequantizeExpertsOp>(group.converter->operations.front());
  }

  Status CheckInputs(const Group& group) {
    const bool lists = group.converter != nullptr && TakesLists(group.converter->operations);
    for (const auto& inputs : group.inputs) {
      if (inputs.empty() && &inputs != &group.inputs[0] && TakesOneAlone(group)) continue;
      if (inputs.empty()) return Unsupported("a part of the fused tensor is missing");
      if (auto status = CheckOneForm(inputs); !status) return status;
      if (!inputs[0].piece && inputs.size() > 1 && !lists) return Collision(inputs[0].unit, inputs[1].unit);
      if (const auto twice = FindTwice(inputs)) return Collision(twice->first, twice->second);
    }
    return CheckNumbers(group, lists);
  }

  // Of what is put into one stack here; experts that only get other names may be any of them.
  Status CheckNumbers(const Group& group, bool lists) const {
    const bool assembled = input_.stack_experts && IsAssembled(group);
    if (input_.partial || !(lists || assembled)) return {};
    if (assembled) {
      std::vector<GroupInput> together;
      for (const auto& inputs : group.inputs) together.insert(together.end(), inputs.begin(), inputs.end());
      if (auto status = CheckOneForm(together); !status) return status;
    }
    std::vector<NumberedList> all;
    for (const auto& inputs : group.inputs) {
      if (inputs.empty()) continue;
      const size_t first = all.size();
      const uint64_t parts = assembled ? inputs[0].piece->parts : 1;
      for (uint64_t part = 0; part < parts; ++part) {
        all.push_back({parts > 1 ? std::string(kGateUpLinears[part]) : LinearOf(units_[inputs[0].unit]), {}});
      }
      for (const GroupInput& input : inputs) {
        if (assembled && input.piece->parts != parts)
          return Unsupported(fmt::format("{} and {} are stored in different numbers of parts",
                                         units_[inputs[0].unit].key, units_[input.unit].key));
        all[first + (assembled ? input.piece->part : 0)].numbers.push_back(assembled ? input.piece->index
                                                                                     : input.number);
      }
    }
    const bool experts = assembled || ExpertDimension(group.converter->operations);
    if (!experts) return CheckNumbering("", "part", all);
    return CheckNumbering(ContainerOfExpert(units_[group.inputs[0][0].unit].key), "expert", all);
  }

  static std::string LinearOf(const WeightUnit& unit) {
    return std::string(SplitLeaf(SplitLeaf(unit.key).module).leaf);
  }

  // A stack that is made or taken apart here, by its in-memory name and how many experts it has.
  void CountExperts(const Group& group, const Strands& results) {
    const GroupInput& first = group.inputs[0][0];
    const auto in_memory = [&](const GroupInput& input) {
      const std::string& key = units_[input.unit].key;
      return input_.place ? input_.place->Translate(key) : key;
    };
    if (input_.stack_experts && IsAssembled(group)) {
      return stacked_.Add(ContainerOfExpert(in_memory(first)), ContainerOfExpert(units_[first.unit].key),
                          group.inputs[0].size() / first.piece->parts, first.unit);
    }
    const auto dim = group.converter == nullptr ? std::nullopt : ExpertDimension(group.converter->operations);
    if (!dim || first.piece) return;
    if (!TakesLists(group.converter->operations)) {
      for (const auto& inputs : group.inputs) {
        if (inputs.empty() || inputs[0].piece) continue;
        const WeightUnit& unit = units_[inputs[0].unit];
        if (*dim >= unit.weight.shape.size()) continue;  // operations before it have made the dimension
        stacked_.Add(ContainerOfStack(in_memory(inputs[0])), ContainerOfStack(unit.key), unit.weight.shape[*dim],
                     inputs[0].unit);
      }
      return;
    }
    for (size_t target = 0; target < results.size(); ++target) {
      const auto name = group.Name(target, std::nullopt);
      if (!name || results[target].size() != 1 || results[target][0].weight.shape.size() <= *dim) continue;
      stacked_.Add(ContainerOfStack(*name), ContainerOfExpert(units_[first.unit].key),
                   results[target][0].weight.shape[*dim], first.unit);
    }
  }

  // Two units that are the same piece of a stacked parameter.
  static std::optional<std::pair<size_t, size_t>> FindTwice(const std::vector<GroupInput>& inputs) {
    if (!inputs[0].piece) return std::nullopt;
    const auto place = [](const GroupInput& input) { return std::pair(input.piece->index, input.piece->part); };
    std::vector<GroupInput> sorted = inputs;
    std::stable_sort(sorted.begin(), sorted.end(),
                     [&](const GroupInput& a, const GroupInput& b) { return place(a) < place(b); });
    const auto twice = std::adjacent_find(
        sorted.begin(), sorted.end(), [&](const GroupInput& a, const GroupInput& b) { return place(a) == place(b); });
    if (twice == sorted.end()) return std::nullopt;
    return std::pair(twice->unit, std::next(twice)->unit);
  }

  Status CheckOneForm(const std::vector<GroupInput>& inputs) const {
    const auto expanded =
        std::find_if(inputs.begin(), inputs.end(), [](const GroupInput& i) { return i.piece.has_value(); });
    const auto stacked = std::find_if(inputs.begin(), inputs.end(), [](const GroupInput& i) { return !i.piece; });
    if (expanded == inputs.end() || stacked == inputs.end()) return {};
    return Unsupported(fmt::format("{} is stacked and {} expanded: one container holds its experts both ways",
                                   units_[stacked->unit].key, units_[expanded->unit].key));
  }

  Error Collision(size_t a, size_t b) const {
    return Error{ErrorKind::kNameCollision,
                 fmt::format("{} would become the same hub tensor", units_[b].key),
                 {},
                 units_[a].key,
                 {}};
  }

  // The weight of a unit, with the bias that goes along with it as one more stored tensor.
  Result<LogicalWeight> WithBias(size_t unit, bool piece) const {
    LogicalWeight weight = units_[unit].weight;
    const auto it = grouping_.attached_bias.find(unit);
    if (it == grouping_.attached_bias.end()) return weight;
    StoredPart bias = units_[it->second].weight.parts[0];
    const std::vector<uint64_t>& shape = bias.array.shape;
    // [out], or [E, out] beside stacked experts: the weight's leading dimensions.
    const bool fits =
        shape.size() < weight.shape.size() && std::equal(shape.begin(), shape.end(), weight.shape.begin());
    if (!fits)
      return Unsupported(fmt::format("the bias of shape [{}] does not fit a weight of shape [{}]{}",
                                     fmt::join(shape, ", "), fmt::join(weight.shape, ", "),
                                     piece ? " of one expert" : ""));
    bias.leaf = "bias";
    bias.axes.assign(weight.shape.size(), std::nullopt);
    for (size_t dim = 0; dim < shape.size(); ++dim) bias.axes[dim] = Axis{dim, 1};
    weight.parts.push_back(std::move(bias));
    return weight;
  }

  Status Emit(size_t g, std::string key, NameStyle style, LogicalWeight weight, UnitRole role,
              const std::vector<size_t>& sources) {
    const bool module_style = key.ends_with(".weight") || key == "weight";
    const bool experts = weight.shape.size() == 3;  // "<parameter>_weight_scale" is their convention
    if (!module_style && !experts && style == NameStyle::kModule && role == UnitRole::kValue &&
        weight.parts.size() > 1) {
      return Unsupported(fmt::format(
          "the hub stores this weight as the bare parameter {}, which has no convention for the names of its scales",
          key));
    }
    if (const StoredPart* bias = weight.Find("bias"); bias != nullptr && role == UnitRole::kValue) {
      conversion_.weights.push_back({PartName(key, module_style, role, *bias, false), units_[sources[0]].key,
                                     UnitRole::kBias, FormatId::kPlain, bias->array.shape});
    }
    if (auto status = EmitFollowers(key, weight, sources); !status) return status;
    const bool reshaped = sources.size() > 1 || units_[sources[0]].weight.shape != weight.shape;
    bool respelled = false;
    for (size_t p = 0; p < weight.parts.size(); ++p) {
      StoredPart& part = weight.parts[p];
      const uint32_t shard = FirstShard(part.array);
      if (part.restate && reshaped) Restate(weight.shape, &part);
      respelled |= Respell(input_, style, module_style ? NameStyle::kModule : NameStyle::kParameter, &part);
      conversion_.tensors.push_back(
          {PartName(key, module_style, role, part, p == 0), std::move(part.array), weight.format, shard});
    }
    produced_[g].push_back(key);
    for (const size_t source : sources) {
      const WeightUnit& unit = units_[source];
      if (unit.key != key || respelled || unit.IsBelowProjection()) renamed_[source] = true;
      if (role == UnitRole::kValue && OwnsWeight(unit)) AddModule(unit.module, std::string(SplitLeaf(key).module));
    }
    conversion_.weights.push_back({std::move(key), units_[sources[0]].key, role, weight.format, weight.shape});
    return {};
  }

  // Strays stand below the weight's new module as they stood below the old one. Nothing says which part of a weight
  // they are of, so a weight that is not whole any more can't have them.
  Status EmitFollowers(const std::string& key, const LogicalWeight& weight, const std::vector<size_t>& sources) {
    for (const size_t source : sources) {
      const auto followers = grouping_.followers.find(source);
      if (followers == grouping_.followers.end()) continue;
      const WeightUnit& owner = units_[source];
      const bool module_style = key.ends_with(".weight") || key == "weight";
      const bool whole = sources.size() == 1 && module_style && IsUntouched(weight, owner.weight);
      for (const size_t follower : followers->second) {
        const WeightUnit& unit = units_[follower];
        for (const uint32_t tensor : unit.tensors) {
          const StoredTensor& stored = input_.table->tensors[tensor];
          if (!whole)
            return Error{ErrorKind::kQuantConversionUnsupported,
                         fmt::format("it stands below {}, which is cut, joined or permuted, and no format says how it "
                                     "would be as well",
                                     owner.module),
                         input_.table->shards[stored.shard].name, stored.info.name,
                         "remove it if it is not needed, or keep the names"};
          std::string name = JoinName(SplitLeaf(key).module, stored.info.name.substr(owner.module.size() + 1));
          if (name != stored.info.name) renamed_[follower] = true;
          conversion_.tensors.push_back({std::move(name), WholeTensor(tensor, stored.info.dtype, stored.info.shape),
                                         unit.weight.format, stored.shard});
        }
      }
    }
    return {};
  }

  // A tensor that states the logical shape says another one when the shape is another.
  static void Restate(const std::vector<uint64_t>& shape, StoredPart* part) {
    std::vector<std::byte> bytes = part->restate(shape);
    const uint64_t element = std::max<uint64_t>(1, static_cast<uint64_t>(DTypeBits(part->array.dtype)) / 8);
    // Text changes its length with the shape it states; lists of numbers were cut and stacked as the weight was.
    if (TensorBytes(part->array.dtype, part->array.shape) != bytes.size()) part->array.shape = {bytes.size() / element};
    part->array.blocks.clear();
    part->array.literal = std::move(bytes);
  }

  // Every stored tensor stays in its shard, scales that a shard's border parted from their weight included.
  uint32_t FirstShard(const Array& array) const { return input_.table->tensors[array.blocks.at(0).tensor].shard; }

  static std::string PartName(const std::string& key, bool module_style, UnitRole role, const StoredPart& part,
                              bool value) {
    if (role == UnitRole::kBias) return key;
    if (value && (part.leaf.empty() || part.leaf == "weight")) return key;
    if (part.spelling != nullptr) return JoinName(SplitLeaf(key).module, part.spelling->name);
    return PartTensorName(key, module_style ? NameStyle::kModule : NameStyle::kParameter, part.leaf, part.suffix);
  }

  // Config files speak of linears, embeddings and norms, which own a weight, and of containers of stacked experts.
  static bool OwnsWeight(const WeightUnit& unit) {
    return unit.style == NameStyle::kModule || unit.weight.shape.size() == 3 || unit.weight.parts.size() > 1;
  }

  void AddModule(const std::string& in_memory, std::string hub) {
    // Modules come mostly in the order of the map, which spares the search among 50,000 names that begin alike.
    const auto hint = conversion_.modules.empty() ? conversion_.modules.end() : std::next(last_module_);
    last_module_ = conversion_.modules.try_emplace(hint, in_memory);
    std::vector<std::string>& list = last_module_->second;
    // Most modules become one; only containers of experts become hundreds.
    if (!list.empty() && (list[0] == hub || !modules_seen_.insert(in_memory + '\n' + hub).second)) return;
    list.push_back(std::move(hub));
  }

  // k_scale and v_scale are the attention's: they go where their projection goes, whole, to one place.
  void FollowWeight(const WeightUnit& unit) {
    std::string key = unit.key;
    const auto owner = grouping_.unit_of_key.find(unit.owner);
    if (owner != grouping_.unit_of_key.end() && grouping_.group_of[owner->second] != Grouping::npos) {
      key = ClosestProduct(produced_[grouping_.group_of[owner->second]], unit.weight.parts[0].leaf).value_or(key);
    } else {
      const auto beside = siblings_.KeyOf(SplitLeaf(unit.key).module, produced_);
      key = beside ? *beside : lookup_.NewKey(std::string(SplitLeaf(unit.key).module));
    }
    const std::string& leaf = unit.weight.parts[0].leaf;
    std::string name = JoinName(SplitLeaf(key).module, leaf);
    renamed_[static_cast<size_t>(&unit - units_.data())] = name != input_.table->tensors[unit.tensors[0]].info.name;
    conversion_.tensors.push_back(
        {std::move(name), unit.weight.parts[0].array, FormatId::kPlain, input_.table->tensors[unit.tensors[0]].shard});
  }

  void CheckCollisions() {
    std::unordered_map<std::string_view, const ConvertedTensor*> seen;
    seen.reserve(conversion_.tensors.size() * 2);
    for (const ConvertedTensor& tensor : conversion_.tensors) {
      const auto [it, fresh] = seen.emplace(tensor.name, &tensor);
      if (fresh) continue;
      errors_.push_back({ErrorKind::kNameCollision,
                         fmt::format("both {} and {} would get this name", SourceName(*it->second), SourceName(tensor)),
                         {},
                         tensor.name,
                         {}});
    }
  }

  std::string SourceName(const ConvertedTensor& tensor) const {
    if (tensor.array.blocks.empty()) return "another tensor";
    return input_.table->tensors[tensor.array.blocks.at(0).tensor].info.name;
  }

  const ConversionInput& input_;
  const std::vector<WeightUnit>& units_;
  const Grouping& grouping_;
  const Siblings siblings_;
  const NameLookup& lookup_;
  StackedContainers stacked_;
  std::unordered_set<std::string> said_;            // errors, so that none is said twice
  std::vector<std::vector<std::string>> produced_;  // for each group, the hub keys it gave
  ModuleMap::iterator last_module_;
  std::unordered_set<std::string> modules_seen_;  // pairs in conversion_.modules
  std::vector<bool> renamed_;                     // for each unit: some tensor of its went under another name
  Conversion conversion_;
  Errors errors_;
};

}  // namespace

Result<Conversion> RunGroups(const ConversionInput& input, const Grouping& grouping, const NameLookup& lookup) {
  return Converter(input, grouping, lookup).Run();
}

}  // namespace quantport
