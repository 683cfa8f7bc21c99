#include "quantize/amax_search.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <vector>

#include "base/checked.h"
#include "quantize/check.h"
#include "quantize/codes.h"

namespace quantport::quantize {
namespace {

constexpr float kZeroAmax = 0x1p-24f;  // amax up to this is taken for zero
constexpr size_t kChunk = 1024;        // elements that are converted at once

// NaN stays.
float Clamp(float value, float low, float high) { return value < low ? low : value > high ? high : value; }

// Of magnitudes up to 448, ties to even, without branches so that a compiler can use vectors.
float RoundToE4m3(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const float magnitude = std::bit_cast<float>(bits & 0x7FFFFFFF);
  const float subnormal = magnitude + 0x1p14f - 0x1p14f;
  const uint32_t rounded = ((bits & 0x7FFFFFFF) + 0x7FFFF + (bits >> 20 & 1)) & 0xFFF00000;
  const float normal = std::bit_cast<float>(rounded);
  return std::copysign(magnitude < 0x1p-6f ? subnormal : normal, value);
}

template <typename Quantized>
double SumSquares(std::span<const float> values, const Quantized& quantized) {
  double sum = 0;
  for (const float value : values) {
    const float error = value - quantized(value);
    sum += static_cast<double>(error * error);
  }
  return sum;
}

double Fp8Loss(std::span<const float> values, float amax) {
  const float scale = kE4m3Max / (amax <= kZeroAmax ? 1.0f : amax);
  const float inverse = 1.0f / scale;
  return SumSquares(values,
                    [&](float value) { return RoundToE4m3(Clamp(value * scale, -kE4m3Max, kE4m3Max)) * inverse; });
}

double IntegerLoss(std::span<const float> values, float largest, float amax) {
  if (amax <= kZeroAmax) return SumSquares(values, [](float) { return 0.0f; });
  const float scale = largest / amax;
  // Whole numbers are a step apart above 2^23.
  constexpr float kWhole = 0x1.8p23f;
  return SumSquares(values, [&](float value) {
    const float clamped = Clamp(value * scale, -largest - 1, largest);
    return (clamped + kWhole - kWhole) / scale;
  });
}

double Loss(std::span<const float> values, FormatId format, float amax) {
  if (format == FormatId::kFp8PerTensor) return Fp8Loss(values, amax);
  return IntegerLoss(values, format == FormatId::kInt8 ? 127.0f : 7.0f, amax);
}

}  // namespace

void AddLosses(const Row& row, FormatId format, std::span<const float> amax, std::span<double> losses) {
  std::array<float, kChunk> chunk;
  for (size_t first = 0; first < row.size; first += kChunk) {
    const size_t count = std::min(kChunk, row.size - first);
    for (size_t i = 0; i < count; ++i) chunk[i] = LoadElement(row, first + i);
    for (size_t k = 0; k < amax.size(); ++k) losses[k] += Loss({chunk.data(), count}, format, amax[k]);
  }
}

size_t LeastLoss(std::span<const double> losses) {
  size_t least = 0;
  for (size_t k = 1; k < losses.size() && !std::isnan(losses[least]); ++k) {
    if (std::isnan(losses[k]) || losses[k] < losses[least]) least = k;
  }
  return least;
}

Status SearchAmax(const Matrix& matrix, BlockShape block, FormatId format, std::span<const float> multipliers,
                  ElementType amax_type, std::span<float> amax) {
  if (multipliers.empty()) return Refuse("a search needs candidates");
  if (Status status = BlockAmax(matrix, block, amax); !status) return status;
  const size_t across = CeilDiv(matrix.columns, block.columns);
  const size_t candidates = multipliers.size();
  std::vector<float> tried(candidates * across);
  std::vector<double> losses(candidates * across);
  for (size_t first = 0; first < matrix.rows; first += block.rows) {
    const std::span<float> own = amax.subspan(first / block.rows * across, across);
    for (size_t i = 0; i < tried.size(); ++i)
      tried[i] = RoundTo(amax_type, own[i / candidates] * multipliers[i % candidates]);
    std::fill(losses.begin(), losses.end(), 0.0);
    for (size_t row = first; row < std::min(first + block.rows, matrix.rows); ++row) {
      for (size_t b = 0; b < across; ++b) {
        const size_t begin = b * block.columns;
        AddLosses(matrix.RowAt(row).Slice(begin, std::min(block.columns, matrix.columns - begin)), format,
                  std::span(tried).subspan(b * candidates, candidates),
                  std::span(losses).subspan(b * candidates, candidates));
      }
    }
    for (size_t b = 0; b < across; ++b)
      own[b] = tried[b * candidates + LeastLoss(std::span(losses).subspan(b * candidates, candidates))];
  }
  return {};
}

}  // namespace quantport::quantize
