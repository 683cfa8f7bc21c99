#include "plan/expert_numbers.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/text.h"

namespace quantport {
namespace {

constexpr size_t kRanges = 8;  // of numbers in a message

uint64_t After(uint64_t number) { return number == std::numeric_limits<uint64_t>::max() ? number : number + 1; }

// "3, 5 to 7": the numbers below `end` that are not in `present`, which is sorted.
std::string MissingBelow(uint64_t end, const std::vector<uint64_t>& present) {
  std::vector<std::string> ranges;
  uint64_t next = 0;
  const auto add = [&](uint64_t until) {
    if (next < until)
      ranges.push_back(next + 1 == until ? std::to_string(next) : fmt::format("{} to {}", next, until - 1));
  };
  for (const uint64_t number : present) {
    add(number);
    next = After(number);
  }
  add(end);
  if (ranges.size() > kRanges) {
    ranges.resize(kRanges);
    ranges.emplace_back("...");
  }
  return fmt::format("{}", fmt::join(ranges, ", "));
}

std::string_view WithoutWeight(std::string_view key) {
  return SplitLeaf(key).leaf == "weight" ? SplitLeaf(key).module : key;
}

bool IsRouterName(std::string_view part) {
  return part == "gate" || part == "gate_weight" || part.find("router") != std::string_view::npos;
}

}  // namespace

Status CheckNumbering(std::string_view container, std::string_view noun, const std::vector<NumberedList>& lists) {
  std::vector<std::vector<uint64_t>> sorted;
  uint64_t end = 0;
  Errors errors;
  const auto refuse = [&](std::string what) {
    errors.push_back({ErrorKind::kQuantConversionUnsupported,
                      std::move(what),
                      {},
                      std::string(container),
                      fmt::format("stacked, every {} behind would get the number of another; get the files that are "
                                  "missing, or leave out the ones that are too many",
                                  noun)});
  };
  for (const NumberedList& list : lists) {
    std::vector<uint64_t> numbers;
    for (const auto& number : list.numbers) {
      if (number) numbers.push_back(*number);
    }
    if (numbers.size() != list.numbers.size() && list.numbers.size() > 1)
      refuse(fmt::format("the names of the {}s' {} do not say their numbers", noun, list.linear));
    std::sort(numbers.begin(), numbers.end());
    const auto twice = std::adjacent_find(numbers.begin(), numbers.end());
    if (twice != numbers.end()) refuse(fmt::format("{} of {} {} stands twice", list.linear, noun, *twice));
    if (!numbers.empty()) end = std::max(end, After(numbers.back()));
    sorted.push_back(std::move(numbers));
  }
  const bool alike = std::all_of(sorted.begin(), sorted.end(), [&](const auto& other) { return other == sorted[0]; });
  for (size_t i = 0; i < sorted.size() && errors.empty(); ++i) {
    if (sorted[i].size() == end) continue;
    const std::string missing = MissingBelow(end, sorted[i]);
    refuse(alike ? fmt::format("there is no {} {}, of 0 to {}", noun, missing, end - 1)
                 : fmt::format("{} of {} {} is missing", lists[i].linear, noun, missing));
    if (alike) break;
  }
  if (!errors.empty()) return errors;
  return {};
}

std::string ContainerOfExpert(std::string_view key) {
  std::string_view rest = WithoutWeight(key);
  while (!rest.empty()) {
    const auto [module, leaf] = SplitLeaf(rest);
    rest = module;
    if (IsDigits(leaf)) break;
  }
  return std::string(rest);
}

std::string ContainerOfStack(std::string_view key) { return std::string(SplitLeaf(WithoutWeight(key)).module); }

std::optional<size_t> ExpertDimension(const std::vector<Operation>& operations) {
  for (const Operation& operation : operations) {
    if (const auto* op = std::get_if<MergeModulelistOp>(&operation)) return static_cast<size_t>(op->dim);
    if (const auto* op = std::get_if<SplitModulelistOp>(&operation)) return static_cast<size_t>(op->dim);
    if (const auto* op = std::get_if<ErnieFuseAndSplitOp>(&operation)) return static_cast<size_t>(op->stack_dim);
    if (const auto* op = std::get_if<ErnieSplitAndDecoupleOp>(&operation)) return static_cast<size_t>(op->stack_dim);
  }
  return std::nullopt;
}

void StackedContainers::Add(const std::string& container, const std::string& stored, uint64_t count, size_t unit) {
  const auto [it, fresh] = containers_.try_emplace(container, Container{stored, count, unit, {}});
  if (!fresh && it->second.count != count && !it->second.other) it->second.other = std::pair(count, unit);
}

// The config of the deepest sub-model that holds the container.
const std::vector<ExpertCount>& StackedContainers::CountsFor(const std::string& container) const {
  static const std::vector<ExpertCount> kNone;
  const SubModel* holder = nullptr;
  for (const SubModel& model : submodels_) {
    const bool holds = model.path.empty() || container.starts_with(model.path + ".");
    if (holds && (holder == nullptr || model.path.size() >= holder->path.size())) holder = &model;
  }
  return holder == nullptr ? kNone : holder->experts;
}

// Told by where they stand: the matrices of a block, and those that stand deeper under a router's name ("router.gate").
StackedContainers::Routers StackedContainers::FindRouters() const {
  Routers routers;
  for (const WeightUnit& unit : units_) {
    if (unit.role != UnitRole::kValue || unit.weight.shape.size() != 2) continue;
    bool direct = true;
    for (std::string_view rest = WithoutWeight(unit.key); !rest.empty();) {
      const auto [block, part] = SplitLeaf(rest);
      const bool named = IsRouterName(part);
      if (direct || named) routers[std::string(block)].push_back({unit.key, unit.weight.shape[0], named});
      direct = false;
      rest = block;
    }
  }
  return routers;
}

Error StackedContainers::Refusal(size_t unit, std::string message, std::string hint) const {
  const WeightUnit& source = units_[unit];
  return {ErrorKind::kQuantConversionUnsupported, std::move(message),
          table_.shards[table_.tensors[source.tensors[0]].shard].name, source.key, std::move(hint)};
}

void StackedContainers::Check(Errors* errors, std::vector<Warning>* warnings) const {
  Routers routers;  // of every block, once they are asked for
  std::vector<std::string> unsure;
  std::string example;
  for (const auto& [name, container] : containers_) {
    if (container.other) {
      errors->push_back(Refusal(container.other->second,
                                fmt::format("its container {} has {} experts here and {} in {}", name,
                                            container.other->first, container.count, units_[container.unit].key),
                                "get the files that are missing"));
      continue;
    }
    const std::vector<ExpertCount>& counts = CountsFor(name);
    const auto agrees = [&](const ExpertCount& said) { return said.count == container.count; };
    if (counts.empty() || std::any_of(counts.begin(), counts.end(), agrees)) continue;
    const std::string claim = fmt::format("there are {} experts in {}, and {} is {} in config.json", container.count,
                                          container.stored, counts[0].key, counts[0].count);
    if (routers.empty()) routers = FindRouters();
    const std::vector<Router>& beside = routers[std::string(SplitLeaf(container.stored).module)];
    if (std::any_of(beside.begin(), beside.end(), [&](const Router& r) { return r.rows == container.count; })) continue;
    const auto router = std::find_if(beside.begin(), beside.end(), [](const Router& r) { return r.named; });
    if (router == beside.end()) {
      if (unsure.empty()) example = claim;
      unsure.push_back(name);
      continue;
    }
    errors->push_back(
        Refusal(container.unit, fmt::format("{}, with {} rows in its router {}", claim, router->rows, router->name),
                "get the files that are missing, or correct config.json where the router is what is wrong"));
  }
  if (unsure.empty()) return;
  Warning warning{"expert-count",
                  example,
                  0,
                  {},
                  "check that no expert's file is missing: there is no router to ask which is right"};
  for (std::string& name : unsure) AddName(std::move(name), &warning);
  warnings->push_back(std::move(warning));
}

}  // namespace quantport
