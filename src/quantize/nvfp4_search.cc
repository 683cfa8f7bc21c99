#include "quantize/nvfp4_search.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "quantize/check.h"
#include "quantize/codes.h"
#include "quantize/scales.h"

namespace quantport::quantize {
namespace {

constexpr size_t kMostElements = 32;
using Block = std::array<float, kMostElements>;

// A block scale as ModelOpt's fake quantization rounds it: through E4M3, by multiplications.
float FakeScale(float amax, float largest_scale) {
  constexpr float kSmallest = 0x1p-24f;
  const float factor = kE4m3Max / (largest_scale <= kSmallest ? 1.0f : largest_scale);
  const float scaled = std::clamp(amax / kE2m1Max * factor, -kE4m3Max, kE4m3Max);
  return DecodeE4m3(EncodeE4m3(scaled)) * (1.0f / factor);
}

// Magnitudes up to 6, ties to even codes: as in simd/nvfp4-inl.h, without branches so that a compiler can use vectors.
float RoundToE2m1(float magnitude) {
  const float clamped = std::min(magnitude, kE2m1Max);
  const float step = clamped < 2.0f ? 0x1p22f : clamped < 4.0f ? 0x1p23f : 0x1p24f;
  return clamped + step - step;
}

double SquaredError(const Block& values, size_t count, float scale) {
  const float divisor = scale == 0 ? 1.0f : scale;
  const float factor = scale == 0 ? 0.0f : scale;
  Block errors;
  for (size_t i = 0; i < count; ++i) {
    const float magnitude = std::fabs(values[i]);
    const float error = magnitude - RoundToE2m1(magnitude / divisor) * factor;
    errors[i] = error * error;
  }
  double sum = 0;
  for (size_t i = 0; i < count; ++i) sum += static_cast<double>(errors[i]);
  return sum;
}

// `candidate(amax, k)` is the k-th of `candidates`.
template <typename Candidate>
Status Search(const Matrix& matrix, size_t block, float largest_scale, size_t candidates, const Candidate& candidate,
              std::span<float> block_amax) {
  if (Status status = ExpectMatrix(matrix); !status) return status;
  if (block != 16 && block != 32) return Refuse("NVFP4 has blocks of 16 or 32, not of " + std::to_string(block));
  if (Status status = ExpectMultiple("columns", matrix.columns, block); !status) return status;
  if (Status status = ExpectSize("amax", block_amax.size(), matrix.rows * matrix.columns / block); !status)
    return status;
  const Row row = matrix.Flat();
  for (size_t b = 0; b < block_amax.size(); ++b) {
    Block values;
    float amax = 0;
    for (size_t i = 0; i < block; ++i) {
      values[i] = LoadElement(row, b * block + i);
      amax = std::max(amax, std::fabs(values[i]));
    }
    double least = HUGE_VAL;
    block_amax[b] = candidate(amax, 0);
    for (size_t k = 0; k < candidates; ++k) {
      const float tried = candidate(amax, k);
      const double error = SquaredError(values, block, FakeScale(tried, largest_scale));
      if (error >= least) continue;
      least = error;
      block_amax[b] = tried;
    }
  }
  return {};
}

}  // namespace

std::vector<float> SearchMultipliers(double start, double stop, double step) {
  const size_t count = static_cast<size_t>(std::ceil((stop - start) / step)) + 1;
  const float first = static_cast<float>(start), last = static_cast<float>(stop);
  const double distance = static_cast<double>((last - first) / static_cast<float>(count - 1));
  std::vector<float> multipliers(count);
  // torch counts from the nearer end, and rounds each once.
  for (size_t i = 0; i < count; ++i) {
    const double from_first = static_cast<double>(first) + distance * static_cast<double>(i);
    const double from_last = static_cast<double>(last) - distance * static_cast<double>(count - 1 - i);
    multipliers[i] = static_cast<float>(i < count / 2 ? from_first : from_last);
  }
  return multipliers;
}

Status SearchNvfp4Amax(const Matrix& matrix, size_t block, float group_amax, float normalization,
                       std::span<const float> multipliers, std::span<float> block_amax) {
  if (multipliers.empty()) return Refuse("a search needs candidates");
  return Search(
      matrix, block, group_amax * (kE4m3Max / normalization) / kE2m1Max, multipliers.size(),
      [&](float amax, size_t k) { return amax * multipliers[k]; }, block_amax);
}

Status SweepNvfp4Amax(const Matrix& matrix, size_t block, float group_amax, std::span<float> block_amax) {
  constexpr size_t kPositiveCodes = 126;
  std::array<float, kPositiveCodes> candidates;
  for (size_t k = 0; k < kPositiveCodes; ++k) {
    candidates[k] = group_amax * (DecodeE4m3(static_cast<uint8_t>(k + 1)) / kE4m3Max);
  }
  return Search(
      matrix, block, group_amax / kE2m1Max, kPositiveCodes, [&](float, size_t k) { return candidates[k]; }, block_amax);
}

}  // namespace quantport::quantize
