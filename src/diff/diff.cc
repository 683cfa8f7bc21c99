#include "diff/diff.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>
#include <unordered_map>

#include "base/text.h"
#include "checkpoint/checkpoint.h"
#include "diff/compare.h"
#include "diff/side.h"
#include "diff/sidecars.h"
#include "io/local_storage.h"
#include "load/configs.h"
#include "quantport/quantport.h"

namespace quantport {
namespace {

// The row-major index of the element that holds byte `offset`.
std::vector<uint64_t> ElementIndex(const TensorForm& form, uint64_t offset) {
  uint64_t element = offset * 8 / static_cast<uint64_t>(DTypeBits(form.dtype));
  std::vector<uint64_t> index(form.shape.size());
  for (size_t dim = index.size(); dim-- > 0; element /= form.shape[dim]) index[dim] = element % form.shape[dim];
  return index;
}

class TensorComparer {
 public:
  TensorComparer(Sides& sides, const DiffOptions& options, DiffReport* report)
      : sides_(sides), options_(options), report_(report) {}

  Status Run() {
    MatchNames();
    if (auto status = CompareData(); !status) return status;
    std::sort(report_->tensors.begin(), report_->tensors.end(), [](const TensorDiff& x, const TensorDiff& y) {
      return x.kind != y.kind ? x.kind < y.kind : DotNaturalLess(x.name, y.name);
    });
    if (moved_ > 0) report_->notes.push_back(fmt::format("{} tensors lie in shards of other names", moved_));
    return {};
  }

 private:
  void MatchNames() {
    std::unordered_map<std::string_view, SideTensor*> others;
    others.reserve(sides_.b.tensors.size() * 2);
    for (SideTensor& tensor : sides_.b.tensors) others.emplace(tensor.name, &tensor);
    for (SideTensor& tensor : sides_.a.tensors) {
      const auto other = others.find(tensor.name);
      if (other == others.end()) {
        Add(DiffKind::kOnlyInA, &tensor, nullptr);
        continue;
      }
      Match(tensor, *other->second);
      others.erase(other);
    }
    for (const auto& [name, tensor] : others) Add(DiffKind::kOnlyInB, nullptr, tensor);
  }

  void Add(DiffKind kind, const SideTensor* a, const SideTensor* b) {
    TensorDiff diff{kind, (a != nullptr ? a : b)->name, {}, {}, 0, {}};
    if (a != nullptr) diff.a = a->form;
    if (b != nullptr) diff.b = b->form;
    report_->tensors.push_back(std::move(diff));
  }

  void Match(SideTensor& a, SideTensor& b) {
    moved_ += a.shard != b.shard ? 1 : 0;
    if (a.form.dtype != b.form.dtype) return Add(DiffKind::kDType, &a, &b);
    if (a.form.shape != b.form.shape) return Add(DiffKind::kShape, &a, &b);
    if (!options_.data) {
      ++report_->equal_tensors;
      return;
    }
    if (!a.located || !b.located) return Add(DiffKind::kNotCompared, &a, &b);
    for (FileRange& range : b.ranges) range.file += static_cast<uint32_t>(sides_.a.files.size());
    pairs_.push_back({std::move(a.ranges), std::move(b.ranges), a.bytes});
    compared_.emplace_back(&a, &b);
    report_->compared_bytes += a.bytes;
  }

  Status CompareData() {
    if (pairs_.empty()) return {};
    auto files = OpenFiles();
    if (!files) return files.errors();
    auto differences = CompareBytes(*files, pairs_, {options_.threads, options_.progress, options_.cancel});
    if (!differences) return differences.errors();
    for (size_t i = 0; i < pairs_.size(); ++i) {
      const auto [a, b] = compared_[i];
      const ByteDifference& difference = (*differences)[i];
      if (difference.count == 0) {
        ++report_->equal_tensors;
        continue;
      }
      Add(DiffKind::kContent, a, b);
      report_->tensors.back().differing_bytes = difference.count;
      report_->tensors.back().first = ElementIndex(a->form, difference.first);
    }
    return {};
  }

  // A's and then B's, as pairs count them.
  Result<std::vector<std::unique_ptr<const ByteSource>>> OpenFiles() const {
    std::vector<std::unique_ptr<const ByteSource>> files;
    Errors errors;
    for (const Side* side : {&sides_.a, &sides_.b}) {
      for (const std::string& name : side->files) {
        auto file = side->folder->Open(name);
        if (!file) {
          errors.insert(errors.end(), file.errors().begin(), file.errors().end());
          continue;
        }
        files.push_back(std::move(*file));
      }
    }
    if (!errors.empty()) return errors;
    return files;
  }

  Sides& sides_;
  const DiffOptions& options_;
  DiffReport* report_;
  uint64_t moved_ = 0;
  std::vector<BytePair> pairs_;
  std::vector<std::pair<const SideTensor*, const SideTensor*>> compared_;  // of each pair
};

// A checkpoint whose configs can't be understood is none that is quantized.
Result<std::string> QuantizationOf(const Checkpoint& checkpoint) {
  const auto configs = ReadConfigs(checkpoint);
  if (!configs && AnyUnreadable(configs.errors(), checkpoint)) return configs.errors();
  if (!configs || !configs->scheme.quantized) return "not quantized";
  return configs->scheme.quant_algo.empty() ? "quantized" : "quantized (" + configs->scheme.quant_algo + ")";
}

// The index's metadata but for the shard of each tensor: total_size and what else its writer put there.
auto IndexMetadata(const Index& index) { return std::tie(index.total_size, index.other_metadata); }

Status NoteWhole(const Checkpoint& a, const Checkpoint& b, std::vector<std::string>* notes) {
  for (const auto& [side, checkpoint] : {std::pair('A', &a), std::pair('B', &b)}) {
    for (const std::string& note : checkpoint->notes) notes->push_back(fmt::format("{}: {}", side, note));
  }
  auto quantization_a = QuantizationOf(a);
  if (!quantization_a) return quantization_a.errors();
  auto quantization_b = QuantizationOf(b);
  if (!quantization_b) return quantization_b.errors();
  if (*quantization_a != *quantization_b)
    notes->push_back(fmt::format("A is {}, B is {}", *quantization_a, *quantization_b));
  if (a.table.shards.size() != b.table.shards.size())
    notes->push_back(fmt::format("A has {} shards, B {}", a.table.shards.size(), b.table.shards.size()));
  if (a.index.has_value() != b.index.has_value()) {
    notes->push_back(fmt::format("only {} has an index", a.index ? "A" : "B"));
  } else if (a.index && IndexMetadata(*a.index) != IndexMetadata(*b.index)) {
    notes->push_back("the metadata of the indexes differ");
  }
  return {};
}

}  // namespace

Result<DiffReport> Diff(const DiffOptions& options, const Storage& storage) {
  auto a = OpenCheckpoint(storage, options.a.string(), {.follow_links = true});
  auto b = OpenCheckpoint(storage, options.b.string(), {.follow_links = true});
  Errors errors;
  for (const auto* side : {&a, &b}) {
    if (!*side) errors.insert(errors.end(), side->errors().begin(), side->errors().end());
  }
  if (!errors.empty()) return errors;
  DiffReport report;
  report.a = options.a.string();
  report.b = options.b.string();
  report.data = options.data;
  if (auto status = NoteWhole(*a, *b, &report.notes); !status) return status.errors();
  auto sides =
      options.map ? MapSides(*a, *b, options.mapping) : Result<Sides>(Sides{StoredSide(*a), StoredSide(*b), {}});
  if (!sides) return sides.errors();
  report.notes.insert(report.notes.end(), sides->notes.begin(), sides->notes.end());
  auto sidecars =
      CompareSidecars({*a, sides->a.configs}, {*b, sides->b.configs}, {options.threads, {}, options.cancel});
  if (!sidecars) return sidecars.errors();
  report.equal_files = sidecars->equal;
  report.files = std::move(sidecars->files);
  if (auto status = TensorComparer(*sides, options, &report).Run(); !status) return status.errors();
  return report;
}

}  // namespace quantport
