// Operations that move elements of a logical weight without changing any: row permutations, transposition, and the
// flattening of convolutions. What a layout's blocks do not allow is kQuantConversionUnsupported with the reason.
#pragma once

#include <cstdint>
#include <span>

#include "layout/logical_weight.h"
#include "quantport/error.h"

namespace quantport {

// Along `dim`, in each stretch of rows * columns elements: element row * columns + column goes to
// column * rows + row, as if a [rows, columns] matrix were transposed. Interleaving two halves is [2, n / 2]; the two
// forms of rotary embeddings differ by [2, head / 2] in every head.
// A block of a scale may span whole stretches, or the stretch be moved as a whole; a stretch that is cut by blocks
// can't be, since its elements would change blocks.
Result<LogicalWeight> TransposeStretches(const LogicalWeight& weight, size_t dim, uint64_t rows, uint64_t columns);

// Dimensions `a` and `b` swapped. What is stored for stacked experts keeps its blocks, which then run along the other
// dimension, as ModelOpt's [E, in / 2, out] does; a linear of its own has no format with blocks down its columns.
Result<LogicalWeight> TransposeWeight(const LogicalWeight& weight, size_t a, size_t b);

// Dimension 0 kept, all others as one: [out, in, t, h, w] -> [out, in * t * h * w].
Result<LogicalWeight> FlattenWeight(const LogicalWeight& weight);

// Dimension 1 as several: the inverse. Requires that their product is the dimension.
Result<LogicalWeight> UnflattenWeight(const LogicalWeight& weight, std::span<const uint64_t> sizes);

// Dimensions 0 and 1 as one, and dimension 0 as [n / inner, inner]. For weights stored one element for each.
Result<LogicalWeight> MergeLeading(const LogicalWeight& weight);
Result<LogicalWeight> SplitLeading(const LogicalWeight& weight, uint64_t inner);

// Rows of zeros added behind dimension 0, up to `rows`. For weights that are not quantized: a scale of zeros has no
// meaning.
Result<LogicalWeight> PadRows(const LogicalWeight& weight, uint64_t rows);

}  // namespace quantport
