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

// Triton and the extension run on GPUs alone, so that there is one arithmetic.
constexpr Arithmetic kArithmetic = Arithmetic::kCuda;

// A block scale as ModelOpt's fake quantization rounds it: through E4M3, by multiplications.
float FakeScale(float amax, float largest_scale) {
  constexpr float kSmallest = 0x1p-24f;
  const float factor = kE4m3Max / (largest_scale <= kSmallest ? 1.0f : largest_scale);
  const float scaled = std::clamp(DivideByNumber(amax, kE2m1Max, kArithmetic) * factor, -kE4m3Max, kE4m3Max);
  return DecodeE4m3(EncodeE4m3(scaled)) * (1.0f / factor);
}

// Magnitudes up to 6, ties to even codes: as in simd/nvfp4-inl.h, without branches so that a compiler can use vectors.
float RoundToE2m1(float magnitude) {
  const float clamped = std::min(magnitude, kE2m1Max);
  const float step = clamped < 2.0f ? 0x1p22f : clamped < 4.0f ? 0x1p23f : 0x1p24f;
  return clamped + step - step;
}

// The order of F32 sums decides between candidates whose errors are nearly equal, one block in 20 000 of weights that
// span many powers of two. This one is the GPU's: halves onto each other.
float SumInHalves(Block* errors, size_t count) {
  for (size_t half = count / 2; half > 0; half /= 2) {
    for (size_t i = 0; i < half; ++i) (*errors)[i] += (*errors)[half + i];
  }
  return (*errors)[0];
}

float Scaled(float magnitude, float scale) { return RoundToE2m1(magnitude / (scale == 0 ? 1.0f : scale)); }

// Of the fake quantization, which stores products, and torch's sum.
float StoredError(const Block& magnitudes, size_t count, float scale) {
  Block errors;
  for (size_t i = 0; i < count; ++i) {
    const float error = magnitudes[i] - Scaled(magnitudes[i], scale) * scale;
    errors[i] = error * error;
  }
  return SumInHalves(&errors, count);
}

// Of the sweep's kernel, which multiplies and subtracts at once, and whose threads sum four elements each. F64 holds
// the product, and the difference wherever a quotient is below 2^26.
float FusedError(const Block& magnitudes, size_t count, float scale) {
  Block errors;
  for (size_t i = 0; i < count; ++i) {
    const double product = static_cast<double>(Scaled(magnitudes[i], scale)) * static_cast<double>(scale);
    const float error = static_cast<float>(static_cast<double>(magnitudes[i]) - product);
    errors[i] = error * error;
  }
  Block threads;
  for (size_t i = 0; i < count / 4; ++i) {
    threads[i] = errors[4 * i] + errors[4 * i + 1] + errors[4 * i + 2] + errors[4 * i + 3];
  }
  return SumInHalves(&threads, count / 4);
}

// `candidate(amax, k)` is the k-th of `candidates`, `error_of(magnitudes, amax)` what it costs.
template <typename Candidate, typename ErrorOf>
Status Search(const Matrix& matrix, size_t block, size_t candidates, const Candidate& candidate,
              const ErrorOf& error_of, std::span<float> block_amax) {
  if (Status status = ExpectMatrix(matrix); !status) return status;
  if (block != 16 && block != 32) return Refuse("NVFP4 has blocks of 16 or 32, not of " + std::to_string(block));
  if (Status status = ExpectMultiple("columns", matrix.columns, block); !status) return status;
  if (Status status = ExpectSize("amax", block_amax.size(), matrix.rows * matrix.columns / block); !status)
    return status;
  const Row row = matrix.Flat();
  for (size_t b = 0; b < block_amax.size(); ++b) {
    Block magnitudes;
    float amax = 0;
    for (size_t i = 0; i < block; ++i) {
      magnitudes[i] = std::fabs(LoadElement(row, b * block + i));
      amax = std::max(amax, magnitudes[i]);
    }
    float least = HUGE_VALF;
    block_amax[b] = candidate(amax, 0);
    for (size_t k = 0; k < candidates; ++k) {
      const float tried = candidate(amax, k);
      const float error = error_of(magnitudes, tried);
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
  const float largest_scale = DivideByNumber(group_amax * (kE4m3Max / normalization), kE2m1Max, kArithmetic);
  return Search(
      matrix, block, multipliers.size(), [&](float amax, size_t k) { return amax * multipliers[k]; },
      [&](const Block& magnitudes, float amax) {
        return StoredError(magnitudes, block, FakeScale(amax, largest_scale));
      },
      block_amax);
}

Status SweepNvfp4Amax(const Matrix& matrix, size_t block, float group_amax, std::span<float> block_amax) {
  constexpr size_t kPositiveCodes = 126;
  std::array<float, kPositiveCodes> candidates;
  for (size_t k = 0; k < kPositiveCodes; ++k) {
    candidates[k] = group_amax * DivideByNumber(DecodeE4m3(static_cast<uint8_t>(k + 1)), kE4m3Max, kArithmetic);
  }
  return Search(
      matrix, block, kPositiveCodes, [&](float, size_t k) { return candidates[k]; },
      [&](const Block& magnitudes, float amax) {
        return FusedError(magnitudes, block, DivideByNumber(amax, kE2m1Max, kArithmetic));
      },
      block_amax);
}

}  // namespace quantport::quantize
