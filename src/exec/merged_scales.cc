#include "exec/merged_scales.h"

namespace quantport {
namespace {

struct Merged {
  CommonScale scale;
  std::vector<std::byte> bytes;  // of the scalar that won
};

Result<Merged> ReadMerge(const PlannedMerge& merge, const Sources& sources) {
  std::vector<std::vector<std::byte>> scalars;
  for (const CopyRange& range : merge.scalars) {
    std::vector<std::byte> bytes(range.bytes);
    if (auto status = sources[range.source].ReadAt(bytes, range.from); !status) return status.errors();
    scalars.push_back(std::move(bytes));
  }
  auto scale = FindCommonScale(merge.leaf, merge.dtype, merge.reciprocal, scalars, merge.names);
  if (!scale) return scale.errors();
  const size_t winner = scale->winner;
  return Merged{std::move(*scale), std::move(scalars[winner])};
}

// The tensor of the result that each step works on.
std::vector<const PlannedTensor*> FindTargets(const Plan& plan) {
  std::vector<const PlannedTensor*> targets(plan.steps.size(), nullptr);
  for (const PlannedFile& file : plan.files) {
    for (const PlannedTensor& tensor : file.tensors) {
      for (const Run& run : tensor.runs) {
        if (run.step != 0) targets[run.step - 1] = &tensor;
      }
      if (!tensor.gathered) continue;
      for (const Block& block : tensor.gathered->blocks) {
        if (block.step != 0) targets[block.step - 1] = &tensor;
      }
    }
  }
  return targets;
}

}  // namespace

Result<MergedScales> MergedScales::Read(const Plan& plan, const Sources& sources) {
  std::vector<Merged> merges;
  quantport::Errors errors;
  for (const PlannedMerge& planned : plan.merges) {
    auto merged = ReadMerge(planned, sources);
    if (merged) {
      merges.push_back(std::move(*merged));
    } else {
      errors.insert(errors.end(), merged.errors().begin(), merged.errors().end());
    }
  }
  if (!errors.empty()) return errors;
  MergedScales scales;
  const std::vector<const PlannedTensor*> targets = FindTargets(plan);
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    const ScaleStep& planned = plan.steps[i];
    const Merged& merged = merges[planned.merge];
    Step step;
    step.scalar = plan.merges[planned.merge].leaf;
    if (planned.kind == ScaleStep::Kind::kMerged) {
      step.merged = merged.bytes;
    } else if (targets[i] != nullptr) {
      step.tensor = targets[i]->info.name;
      const double factor = merged.scale.scales[planned.part] / merged.scale.common;
      step.codes = RescaleCodes(planned.kind, targets[i]->info.dtype, factor);
    }
    scales.steps_.push_back(std::move(step));
  }
  return scales;
}

void MergedScales::Apply(uint32_t step, std::span<std::byte> bytes) {
  Step& table = steps_[step - 1];
  if (!table.merged.empty()) {
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = table.merged[i % table.merged.size()];
    return;
  }
  std::array<uint64_t, 256> count = {};
  for (std::byte& byte : bytes) {
    const auto code = static_cast<size_t>(byte);
    ++count[code];
    byte = static_cast<std::byte>(table.codes.code[code]);
  }
  const std::lock_guard lock(mutex_);
  for (size_t code = 0; code < count.size(); ++code) table.count[code] += count[code];
}

std::vector<RescaleError> MergedScales::Errors() const {
  RescaleTally tally;
  for (const Step& step : steps_) {
    if (step.merged.empty() && !step.tensor.empty()) tally.Add(step.tensor, step.scalar, step.codes, step.count);
  }
  return tally.Take();
}

}  // namespace quantport
