// A quantization recipe in ModelOpt's format as a value: which quantizers are on, what they are set to, and how scales
// are found. Nothing here knows a model.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "quantport/error.h"

namespace quantport {

// num_bits and scale_bits: an integer of `integer` bits, or a float of `exponent` and `mantissa` bits.
struct NumberBits {
  int integer = 8;
  int exponent = 0;
  int mantissa = 0;

  static NumberBits Float(int exponent, int mantissa) { return {0, exponent, mantissa}; }
  bool IsFloat() const { return integer == 0; }
  friend bool operator==(const NumberBits&, const NumberBits&) = default;
};

std::string ToString(const NumberBits& bits);  // "e4m3", "int8"

// Elements that share a scale. Axes count from the end: -1 are the inputs of a weight, -2 its outputs.
struct BlockSizes {
  std::map<int, std::optional<int>> axes;  // nothing: the whole axis
  bool dynamic = false;
  std::optional<NumberBits> scale_bits;
  bool four_over_six = false;

  friend bool operator==(const BlockSizes&, const BlockSizes&) = default;
};

// ModelOpt's QuantizerAttributeConfig. What only training or other backends use is kept in `other`, as written.
struct QuantizerAttributes {
  NumberBits num_bits;
  std::vector<int> axis;  // axes with a scale each; empty: one scale a tensor
  std::optional<BlockSizes> block_sizes;
  bool dynamic = false;  // type: dynamic
  bool unsigned_range = false;
  bool narrow_range = false;
  bool use_constant_amax = false;       // 448, of which no scale is stored
  std::optional<double> constant_amax;  // instead of calibration; a scale is stored
  bool rotate = false;
  bool bias = false;    // affine
  std::string backend;  // empty: ModelOpt's own
  Json other = Json::object();

  friend bool operator==(const QuantizerAttributes&, const QuantizerAttributes&) = default;
};

// An entry of quant_cfg. Entries apply in order; a later one that matches replaces the attributes as a whole.
struct RecipeEntry {
  std::string quantizer_name;  // a pattern, as Python's fnmatch
  std::optional<std::string> parent_class;
  std::vector<QuantizerAttributes> cfg;  // empty: attributes stay; several: quantizers one after the other
  bool enable = true;
  std::string place;  // "file:line"
};

struct RecipeAlgorithm {
  std::string method;             // empty: none, nothing is calibrated
  Json options = Json::object();  // as written
  std::string place;
};

struct Recipe {
  std::string name;  // as asked for
  std::string description;
  std::vector<RecipeAlgorithm> algorithms;  // one after the other; usually one
  std::vector<RecipeEntry> entries;
};

// The recipe without default values, as ModelOpt's own dump of it.
Json ToJson(const Recipe& recipe);
Json ToJson(const QuantizerAttributes& attributes);

// Errors: kUnsupportedRecipe naming the recipe and the place of an algorithm that can't be carried out on weights
// alone, with the reason and what to take instead.
Status CheckAlgorithms(const Recipe& recipe);

}  // namespace quantport
