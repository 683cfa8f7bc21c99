#include "diff/side.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <unordered_map>
#include <unordered_set>
#include <utility>

namespace quantport {
namespace {

struct Attempt {
  bool a = true;       // A is reverted, else B
  bool guided = true;  // by the other side
};

Result<PlanReport> PlanAttempt(const Checkpoint& reverted, const Checkpoint& other, const MappingOptions& mapping,
                               bool guided) {
  RevertOptions options;
  options.input = reverted.folder->address();
  // Names alone where there is an index: shapes that differ are to be reported, and a reference with other shapes would
  // be refused.
  if (guided) options.reference = other.index ? other.folder->AddressOf(kIndexName) : other.folder->address();
  options.find_reference = false;
  options.mapping = mapping;
  return PlanRevert(options);
}

template <typename Names>
size_t CountCommon(const Names& names, const std::unordered_set<std::string_view>& others) {
  size_t count = 0;
  for (const auto& tensor : names) count += others.contains(tensor.name) ? 1 : 0;
  return count;
}

std::unordered_set<std::string_view> NameSet(const Side& side) {
  std::unordered_set<std::string_view> names;
  for (const SideTensor& tensor : side.tensors) names.insert(tensor.name);
  return names;
}

// What was said of a model that has no mapping.
std::vector<Warning> UnmappedWarnings(const RevertReport& report) {
  std::vector<Warning> warnings;
  std::copy_if(
      report.warnings.begin(), report.warnings.end(), std::back_inserter(warnings),
      [](const Warning& warning) { return warning.id == "unknown-architecture" || warning.id == "remote-code"; });
  return warnings;
}

std::string AttemptNote(const Attempt& attempt) {
  const auto [reverted, other] = attempt.a ? std::pair("A", "B") : std::pair("B", "A");
  return attempt.guided
             ? fmt::format("{} has in-memory names; it is compared as reverted to the names of {}", reverted, other)
             : fmt::format(
                   "{} has in-memory names; it is compared as reverted by the rules alone, because "
                   "the names or shapes of {} contradict the mapping",
                   reverted, other);
}

}  // namespace

Side StoredSide(const Checkpoint& checkpoint) {
  Side side;
  const TensorTable& table = checkpoint.table;
  side.folder = checkpoint.folder;
  for (const Shard& shard : table.shards) side.files.push_back(shard.name);
  side.tensors.reserve(table.tensors.size());
  for (const StoredTensor& tensor : table.tensors) {
    const TensorInfo& info = tensor.info;
    const Shard& shard = table.shards[tensor.shard];
    const uint64_t bytes = info.end - info.begin;
    side.tensors.push_back({info.name,
                            {info.dtype, info.shape},
                            bytes,
                            shard.name,
                            {{tensor.shard, shard.data_start + info.begin, bytes}},
                            true});
  }
  return side;
}

Side PlannedSide(const Checkpoint& checkpoint, PlanReport plan) {
  Side side;
  side.folder = checkpoint.folder;
  std::unordered_map<std::string_view, uint32_t> numbers;
  for (const Shard& shard : checkpoint.table.shards) {
    numbers.emplace(shard.name, static_cast<uint32_t>(side.files.size()));
    side.files.push_back(shard.name);
  }
  side.tensors.reserve(plan.tensors.size());
  for (PlannedTensorReport& planned : plan.tensors) {
    SideTensor tensor{std::move(planned.name),
                      {planned.dtype, std::move(planned.shape)},
                      planned.bytes,
                      std::move(planned.file),
                      {},
                      true};
    uint64_t covered = 0;
    tensor.ranges.reserve(planned.sources.size());
    for (const SourceRange& source : planned.sources) {
      const auto number = numbers.find(source.file);
      if (number == numbers.end()) continue;
      tensor.ranges.push_back({number->second, source.offset, source.bytes});
      covered += source.bytes;
    }
    tensor.located = covered == tensor.bytes && planned.computed.empty();
    planned.sources = {};
    side.tensors.push_back(std::move(tensor));
  }
  side.configs = std::move(plan.configs);
  return side;
}

Result<Sides> MapSides(const Checkpoint& a, const Checkpoint& b, const MappingOptions& mapping) {
  Sides sides{StoredSide(a), StoredSide(b), {}};
  const auto names_a = NameSet(sides.a);
  const auto names_b = NameSet(sides.b);
  const size_t common = CountCommon(sides.a.tensors, names_b);
  if (common == names_a.size() && common == names_b.size()) {
    sides.notes.emplace_back("both have the same names already");
    return sides;
  }
  Errors first_errors;
  bool planned = false;
  std::vector<Warning> unmapped;
  for (const Attempt& attempt :
       {Attempt{true, true}, Attempt{false, true}, Attempt{true, false}, Attempt{false, false}}) {
    auto plan = PlanAttempt(attempt.a ? a : b, attempt.a ? b : a, mapping, attempt.guided);
    if (!plan) {
      if (first_errors.empty()) first_errors = std::move(plan.errors());
      continue;
    }
    planned = true;
    if (unmapped.empty()) unmapped = UnmappedWarnings(plan->revert);
    if (plan->revert.outcome != RevertOutcome::kReverted) continue;
    if (CountCommon(plan->tensors, attempt.a ? names_b : names_a) <= common) continue;
    sides.notes.push_back(AttemptNote(attempt));
    for (const Warning& warning : plan->revert.warnings) sides.notes.push_back(warning.ToString());
    (attempt.a ? sides.a : sides.b) = PlannedSide(attempt.a ? a : b, std::move(*plan));
    return sides;
  }
  if (!planned) return first_errors;
  for (const Warning& warning : unmapped) sides.notes.push_back(warning.ToString());
  sides.notes.emplace_back("no mapping brings more names together: both are compared as they are");
  return sides;
}

}  // namespace quantport
