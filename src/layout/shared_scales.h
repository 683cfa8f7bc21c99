// Scales that several weights must share once they are one tensor: equal already, or made equal.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "layout/array.h"
#include "layout/logical_weight.h"
#include "quantport/error.h"

namespace quantport {

// A byte range that must equal another before the result is right, for example the scalars of two linears that
// become one. The plan holds them; they are compared before anything is written.
struct EqualBytes {
  std::string leaf;
  Array a;
  Array b;
};

// Scalars of the weights that become one, of which the result gets the largest.
struct ScaleMerge {
  std::string leaf;
  bool reciprocal = false;     // compressed-tensors stores 1 / scale: the smallest, then
  std::vector<Array> scalars;  // one element each
};

// What is computed on the elements of a block.
struct ScaleStep {
  enum class Kind : uint8_t {
    kMerged,      // the merged scalar itself, whatever the block's bytes
    kValues,      // code * own scalar / merged scalar, rounded to the dtype again
    kBlockScales  // the same, but what is not zero stays so: a block scale of 0 would erase its block
  };
  Kind kind = Kind::kMerged;
  uint32_t merge = 0;  // index into SharedScales::merges
  uint32_t part = 0;   // which of its scalars the block's own is

  friend bool operator==(const ScaleStep&, const ScaleStep&) = default;
};

// What concatenations leave to be checked or computed when data can be read.
struct SharedScales {
  bool merge_max = false;  // differing scalars are merged; else they must be equal
  std::vector<EqualBytes> checks;
  std::vector<ScaleMerge> merges;
  std::vector<ScaleStep> steps;
};

// The part `leaf` of a concatenation of `weights`, which is the same all along the concatenated dimension in each.
// `joined` holds the result's parts so far; the part that the scalar is multiplied with is rewritten where scalars are
// merged. Requires that the weights are stored alike.
// Errors: kQuantConversionUnsupported where shapes differ, or where merging is asked for and can't be.
Status ShareScale(const std::vector<LogicalWeight>& weights, size_t part, size_t dim, SharedScales* shared,
                  LogicalWeight* joined);

// Puts weights that stay apart, and are used as one, under the largest of their scalars `leaf`: each gets it, and what
// it is multiplied with is re-expressed. Requires that all have such a part. Errors: kQuantConversionUnsupported where
// nothing can be re-expressed.
Status MergeApart(const std::vector<LogicalWeight*>& weights, std::string_view leaf, SharedScales* shared);

}  // namespace quantport
