// From largest magnitudes to scales, as ModelOpt computes them, and the shapes that share one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "quantize/element.h"
#include "quantport/error.h"

namespace quantport::quantize {

// ModelOpt's bits depend on where torch ran: a CUDA tensor divided by a number is multiplied by the number's rounded
// reciprocal, and a 0-d divisor is rounded to the dividend's type first. On a CPU both are true divisions.
enum class Arithmetic : uint8_t { kCpu, kCuda };

struct Numerics {
  Arithmetic arithmetic = Arithmetic::kCpu;
  // ModelOpt gives tensors that are all zero a scale of zero or NaN, and codes that are NaN. By default they get a
  // scale of one and codes of zero instead.
  bool bit_exact_zeros = false;
};

// The rows and columns that share a scale; blocks at the right and the bottom may be partial.
struct BlockShape {
  size_t rows;
  size_t columns;
};

// `tensor / number` as torch has it.
float DivideByNumber(float value, float number, Arithmetic arithmetic);

// Scale of an FP8 tensor that has one, amax / 448. Zero, which makes every code NaN, only where bits are to be exact.
float Fp8TensorScale(float amax, const Numerics& numerics);

// weight_scale_2 of NVFP4: amax / (6 * normalization), the latter 448, or 256 for four-over-six. `amax` is the largest
// of the whole group of weights that share it. W4A8_NVFP4_FP8 divides by 448 alone, as Fp8TensorScale does.
float Nvfp4GlobalScale(float amax, float normalization, const Numerics& numerics);

// amax / largest for formats whose scales have dimensions (FP8 per channel and per block, INT8, INT4: 448, 127, 7).
// ModelOpt exports zero and NaN as if amax were `largest`, and nothing below the smallest normal number of `type`: that
// in which it keeps amax, the weight's own but for INT4, where it is F32.
void GuardedScales(std::span<const float> amax, float largest, ElementType type, Arithmetic arithmetic,
                   std::span<float> scales);

// Largest magnitudes of the blocks of `matrix`, row by row: ceil(rows / block.rows) * ceil(columns / block.columns) of
// them. Blocks of {rows, columns} give one for the tensor, {1, columns} one a row, {1, group} one a group. NaN where
// one is inside.
Status BlockAmax(const Matrix& matrix, BlockShape block, std::span<float> amax);

// Index of the first NaN or infinity, counted over the rows at hand; rows * columns where there is none.
size_t FindNonfinite(const Matrix& matrix);

}  // namespace quantport::quantize
