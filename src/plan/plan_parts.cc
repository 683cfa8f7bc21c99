#include "plan/plan_parts.h"

#include <algorithm>
#include <numeric>
#include <unordered_map>
#include <vector>

namespace quantport {
namespace {

// The part of each file: the largest first, each to the part that has the least.
std::vector<size_t> DealOut(const std::vector<PlannedFile>& files, size_t parts) {
  std::vector<size_t> order(files.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return files[a].bytes > files[b].bytes; });
  std::vector<uint64_t> bytes(parts, 0);
  std::vector<size_t> part_of(files.size());
  for (const size_t file : order) {
    const auto least = std::min_element(bytes.begin(), bytes.end());
    part_of[file] = static_cast<size_t>(least - bytes.begin());
    *least += files[file].bytes;
  }
  return part_of;
}

// Numbers things anew in the order in which they are first asked for, and collects them.
template <typename T>
class Renumbering {
 public:
  Renumbering(const std::vector<T>& all, std::vector<T>* kept) : all_(all), kept_(*kept) {}

  // Whether the number is new, whose thing is then the last of those kept.
  bool Renumber(uint32_t* number) {
    const auto [it, fresh] = numbers_.emplace(*number, static_cast<uint32_t>(kept_.size()));
    if (fresh) kept_.push_back(all_[*number]);
    *number = it->second;
    return fresh;
  }

 private:
  const std::vector<T>& all_;
  std::vector<T>& kept_;
  std::unordered_map<uint32_t, uint32_t> numbers_;
};

class Cutter {
 public:
  Cutter(const QuantizePlan& plan, size_t part, size_t parts)
      : whole_(plan),
        part_(part),
        part_of_(DealOut(plan.files.files, parts)),
        sources_(plan.files.sources, &cut_.files.sources),
        tensors_(plan.files.tensors, &cut_.files.tensors),
        merges_(plan.files.merges, &cut_.files.merges),
        steps_(plan.files.steps, &cut_.files.steps) {}

  QuantizePlan Cut() {
    cut_.computing = whole_.computing;
    if (part_ == 0) TakeFilesWithoutTensors();
    TakeFiles();
    TakeMatrices();
    TakeScalars();
    return std::move(cut_);
  }

 private:
  void TakeFilesWithoutTensors() {
    cut_.files.index = whole_.files.index;
    cut_.files.texts = whole_.files.texts;
    cut_.files.copies = whole_.files.copies;
    cut_.files.report = whole_.files.report;
    // What planning has compared already, to be compared again at most once.
    cut_.files.checks = whole_.files.checks;
    for (PlannedCheck& check : cut_.files.checks) {
      for (CopyRange& range : check.a) sources_.Renumber(&range.source);
      for (CopyRange& range : check.b) sources_.Renumber(&range.source);
    }
  }

  void TakeFiles() {
    new_number_.resize(part_of_.size());
    for (size_t f = 0; f < part_of_.size(); ++f) {
      if (part_of_[f] != part_) continue;
      new_number_[f] = static_cast<uint32_t>(cut_.files.files.size());
      PlannedFile file = whole_.files.files[f];
      if (file.stays) sources_.Renumber(&file.stays->source);
      for (PlannedTensor& tensor : file.tensors) {
        for (Run& run : tensor.runs) {
          TakeTensor(&run.tensor);
          TakeStep(&run.step);
        }
        if (tensor.gathered) TakeArray(&*tensor.gathered);
      }
      cut_.files.files.push_back(std::move(file));
    }
  }

  void TakeTensor(uint32_t* tensor) {
    if (*tensor != kZeros && tensors_.Renumber(tensor)) sources_.Renumber(&cut_.files.tensors.back().source);
  }

  // Steps count from 1.
  void TakeStep(uint32_t* step) {
    if (*step == 0) return;
    --*step;
    if (steps_.Renumber(step) && merges_.Renumber(&cut_.files.steps.back().merge)) {
      for (CopyRange& scalar : cut_.files.merges.back().scalars) sources_.Renumber(&scalar.source);
    }
    ++*step;
  }

  void TakeArray(Array* array) {
    for (Block& block : array->blocks) {
      TakeTensor(&block.tensor);
      TakeStep(&block.step);
    }
  }

  bool IsOurs(const std::optional<OutputPlace>& place) const { return place && part_of_[place->file] == part_; }

  // The place in the part's files, or none.
  std::optional<OutputPlace> Take(const std::optional<OutputPlace>& place) const {
    if (!IsOurs(place)) return std::nullopt;
    return OutputPlace{new_number_[place->file], place->offset};
  }

  bool IsWritten(const PlannedMatrix& matrix) const {
    return IsOurs(matrix.codes) || IsOurs(matrix.scales) || IsOurs(matrix.scalar);
  }

  void TakeMatrices() {
    std::vector<bool> shared(whole_.groups, false);
    for (const PlannedMatrix& matrix : whole_.matrices) {
      if (matrix.group && IsWritten(matrix)) shared[*matrix.group] = true;
    }
    std::vector<uint32_t> groups(whole_.groups);
    for (uint32_t g = 0; g < whole_.groups; ++g) {
      groups[g] = cut_.groups;
      if (shared[g]) ++cut_.groups;
    }
    for (const PlannedMatrix& matrix : whole_.matrices) {
      const bool measured = matrix.group && shared[*matrix.group];
      if (measured || IsWritten(matrix)) TakeMatrix(matrix, groups);
    }
  }

  void TakeMatrix(PlannedMatrix matrix, const std::vector<uint32_t>& groups) {
    matrix.codes = Take(matrix.codes);
    matrix.scales = Take(matrix.scales);
    matrix.scalar = Take(matrix.scalar);
    if (matrix.group) matrix.group = groups[*matrix.group];
    if (!matrix.codes && !matrix.scales) matrix.bytes_after = 0;
    MatrixSource& source = matrix.source;
    if (source.coded.format == FormatId::kPlain) {
      TakeArray(&source.array);
    } else {
      for (CodedPart& part : source.coded.parts) TakeTensor(&part.tensor);
    }
    cut_.matrices.push_back(std::move(matrix));
  }

  void TakeScalars() {
    for (const PlannedScalar& scalar : whole_.scalars) {
      if (IsOurs(scalar.place)) cut_.scalars.push_back({*Take(scalar.place), scalar.amax, scalar.divisor});
    }
  }

  const QuantizePlan& whole_;
  const size_t part_;
  const std::vector<size_t> part_of_;  // of each file
  std::vector<uint32_t> new_number_;   // of each file that is this part's
  QuantizePlan cut_;
  Renumbering<PlanSource> sources_;
  Renumbering<SourceTensor> tensors_;
  Renumbering<PlannedMerge> merges_;
  Renumbering<ScaleStep> steps_;
};

}  // namespace

QuantizePlan PartOf(const QuantizePlan& plan, size_t part, size_t parts) { return Cutter(plan, part, parts).Cut(); }

}  // namespace quantport
