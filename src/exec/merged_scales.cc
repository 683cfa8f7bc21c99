#include "exec/merged_scales.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "base/float8.h"

namespace quantport {
namespace {

float HalfToFloat(uint16_t half) {
  const int exponent = half >> 10 & 31;
  const int mantissa = half & 1023;
  const float value = exponent == 0    ? std::ldexp(static_cast<float>(mantissa), -24)
                      : exponent == 31 ? (mantissa == 0 ? INFINITY : NAN)
                                       : std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25);
  return (half & 0x8000) != 0 ? -value : value;
}

// The number a stored scalar is, where its dtype is one of those scales have.
std::optional<double> ScalarValue(DType dtype, std::span<const std::byte> bytes) {
  uint32_t bits = 0;
  std::memcpy(&bits, bytes.data(), std::min(bytes.size(), sizeof bits));
  float value = 0;
  switch (dtype) {
    case DType::kF32:
      break;
    case DType::kBF16:
      bits <<= 16;
      break;
    case DType::kF16:
      return HalfToFloat(static_cast<uint16_t>(bits));
    default:
      return std::nullopt;
  }
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

struct Merged {
  std::vector<double> scales;  // of each part; reciprocals undone
  double common = 0;
  std::vector<std::byte> bytes;  // of the scalar that won
};

Result<Merged> ReadMerge(const PlannedMerge& merge, std::span<const File> sources) {
  Merged merged;
  for (size_t i = 0; i < merge.scalars.size(); ++i) {
    const CopyRange& range = merge.scalars[i];
    std::vector<std::byte> bytes(range.bytes);
    if (auto status = sources[range.source].ReadAt(bytes, range.from); !status) return status.errors();
    const auto value = ScalarValue(merge.dtype, bytes);
    if (!value || !std::isfinite(*value) || *value <= 0) {
      return Error{ErrorKind::kQuantConversionUnsupported,
                   fmt::format("{} is no positive number, so weights can't be put under a common scale", merge.leaf),
                   {},
                   merge.names[i],
                   "the export is broken here: quantize this layer again"};
    }
    const double scale = merge.reciprocal ? 1.0 / *value : *value;
    merged.scales.push_back(scale);
    if (scale > merged.common) {
      merged.common = scale;
      merged.bytes = std::move(bytes);
    }
  }
  return merged;
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

double CodeValue(DType dtype, int code) {
  return dtype == DType::kI8 ? static_cast<double>(static_cast<int8_t>(code)) : DecodeE4m3(static_cast<uint8_t>(code));
}

uint8_t EncodeValue(DType dtype, double value) {
  if (dtype != DType::kI8) return EncodeE4m3(value);
  return static_cast<uint8_t>(static_cast<int8_t>(std::clamp(std::nearbyint(value), -128.0, 127.0)));
}

}  // namespace

void MergedScales::FillCodes(const ScaleStep& planned, DType dtype, double factor, Step* step) {
  for (int code = 0; code < 256; ++code) {
    const auto at = static_cast<size_t>(code);
    const double exact = CodeValue(dtype, code) * factor;
    uint8_t rounded = std::isnan(exact) || factor == 1.0 ? static_cast<uint8_t>(code) : EncodeValue(dtype, exact);
    if (planned.kind == ScaleStep::Kind::kBlockScales && exact > 0 && rounded == 0) rounded = 1;
    step->code[at] = rounded;
    if (std::isnan(exact)) continue;
    const double error = CodeValue(dtype, rounded) - exact;
    step->value[at] = exact;
    step->squared[at] = error * error;
  }
}

Result<MergedScales> MergedScales::Read(const Plan& plan, std::span<const File> sources) {
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
      FillCodes(planned, targets[i]->info.dtype, merged.scales[planned.part] / merged.common, &step);
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
    byte = static_cast<std::byte>(table.code[code]);
  }
  const std::lock_guard lock(mutex_);
  for (size_t code = 0; code < count.size(); ++code) table.count[code] += count[code];
}

std::vector<RescaleError> MergedScales::Errors() const {
  std::vector<RescaleError> out;
  double squares = 0;
  double errors = 0;
  for (const Step& step : steps_) {
    if (!step.merged.empty() || step.tensor.empty()) continue;
    if (out.empty() || out.back().tensor != step.tensor || out.back().scalar != step.scalar) {
      out.push_back({step.tensor, step.scalar, 0, 0, 0, 0});
      squares = errors = 0;
    }
    RescaleError& entry = out.back();
    for (size_t code = 0; code < step.count.size(); ++code) {
      if (step.count[code] == 0) continue;
      const auto count = static_cast<double>(step.count[code]);
      entry.elements += step.count[code];
      squares += count * step.value[code] * step.value[code];
      errors += count * step.squared[code];
      if (step.squared[code] == 0) continue;
      entry.changed += step.count[code];
      entry.largest_relative =
          std::max(entry.largest_relative, std::sqrt(step.squared[code]) / std::fabs(step.value[code]));
    }
    entry.rms_relative = squares > 0 ? std::sqrt(errors / squares) : 0;
  }
  return out;
}

}  // namespace quantport
