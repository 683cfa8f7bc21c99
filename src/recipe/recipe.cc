#include "recipe/recipe.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace quantport {
namespace {

struct Refused {
  std::string_view method;
  std::string_view reason;
  std::string_view instead;
};

constexpr std::string_view kPlain = "the recipe of the same format with algorithm max, or ModelOpt itself";

// What ModelOpt has and weights alone can't give.
constexpr std::array<Refused, 9> kRefused = {{
    {"awq_lite", "AWQ chooses scales by the error of each layer's output on calibration data", kPlain},
    {"awq_clip", "AWQ chooses clipping by the error of each layer's output on calibration data", kPlain},
    {"awq_full", "AWQ chooses scales and clipping by the error of each layer's output on calibration data", kPlain},
    {"smoothquant", "SmoothQuant moves the range of each input channel into the weights", kPlain},
    {"svdquant", "SVDQuant smooths by the range of each input channel before it splits off a residual", kPlain},
    {"gptq", "GPTQ corrects each weight by the second moments of the layer's inputs", kPlain},
    {"local_hessian", "the error of each block is weighted by the second moments of the layer's inputs",
     "nvfp4_w4a4_weight_mse_fp8_sweep, which weighs all inputs alike"},
    {"nvfp4_act_headroom", "input scales come from percentiles of activations",
     "nvfp4_default-kv_fp8_cast with calibrated inputs"},
    {"lsq", "scales are learned in training", kPlain},
}};

Json BitsJson(const NumberBits& bits) {
  if (bits.IsFloat()) return Json::array({bits.exponent, bits.mantissa});
  return bits.integer;
}

Json BlocksJson(const BlockSizes& blocks) {
  Json json = Json::object();
  for (auto it = blocks.axes.rbegin(); it != blocks.axes.rend(); ++it)
    json[std::to_string(it->first)] = it->second ? Json(*it->second) : Json(nullptr);
  json["type"] = blocks.dynamic ? "dynamic" : "static";
  if (blocks.scale_bits) json["scale_bits"] = BitsJson(*blocks.scale_bits);
  if (blocks.four_over_six) json["four_over_six"] = true;
  return json;
}

Json AlgorithmJson(const RecipeAlgorithm& algorithm) {
  if (algorithm.options.empty()) return algorithm.method.empty() ? Json(nullptr) : Json(algorithm.method);
  Json json = Json::object();
  json["method"] = algorithm.method.empty() ? Json(nullptr) : Json(algorithm.method);
  json.update(algorithm.options);
  return json;
}

}  // namespace

std::string ToString(const NumberBits& bits) {
  return bits.IsFloat() ? fmt::format("e{}m{}", bits.exponent, bits.mantissa) : fmt::format("int{}", bits.integer);
}

Json ToJson(const QuantizerAttributes& attributes) {
  Json json = Json::object();
  if (attributes.num_bits != NumberBits()) json["num_bits"] = BitsJson(attributes.num_bits);
  if (attributes.axis.size() == 1) json["axis"] = attributes.axis[0];
  if (attributes.axis.size() > 1) json["axis"] = attributes.axis;
  if (attributes.block_sizes) json["block_sizes"] = BlocksJson(*attributes.block_sizes);
  if (attributes.dynamic) json["type"] = "dynamic";
  if (attributes.unsigned_range) json["unsigned"] = true;
  if (attributes.narrow_range) json["narrow_range"] = true;
  if (attributes.use_constant_amax) json["use_constant_amax"] = true;
  if (attributes.constant_amax) json["constant_amax"] = *attributes.constant_amax;
  if (attributes.rotate) json["rotate"] = true;
  if (!attributes.backend.empty()) json["backend"] = attributes.backend;
  json.update(attributes.other);
  return json;
}

Json ToJson(const Recipe& recipe) {
  Json json = Json::object();
  Json algorithms = Json::array();
  for (const RecipeAlgorithm& algorithm : recipe.algorithms) algorithms.push_back(AlgorithmJson(algorithm));
  json["algorithm"] = algorithms.size() == 1 ? algorithms[0] : algorithms;
  json["quant_cfg"] = Json::array();
  for (const RecipeEntry& entry : recipe.entries) {
    Json item = Json::object();
    item["quantizer_name"] = entry.quantizer_name;
    if (entry.parent_class) item["parent_class"] = *entry.parent_class;
    if (entry.cfg.size() == 1) item["cfg"] = ToJson(entry.cfg[0]);
    if (entry.cfg.size() > 1) {
      item["cfg"] = Json::array();
      for (const QuantizerAttributes& attributes : entry.cfg) item["cfg"].push_back(ToJson(attributes));
    }
    if (!entry.enable) item["enable"] = false;
    json["quant_cfg"].push_back(std::move(item));
  }
  return json;
}

Status CheckAlgorithms(const Recipe& recipe) {
  for (const RecipeAlgorithm& algorithm : recipe.algorithms) {
    const auto fail = [&](std::string why, std::string hint) {
      return Error{ErrorKind::kUnsupportedRecipe,
                   fmt::format("recipe {}: {}", recipe.name, why),
                   algorithm.place,
                   {},
                   std::move(hint)};
    };
    if (recipe.algorithms.size() > 1)
      return fail(fmt::format("{} algorithms one after the other", recipe.algorithms.size()),
                  "a recipe with one of max and mse");
    if (algorithm.method.empty() || algorithm.method == "max" || algorithm.method == "mse") continue;
    const auto refused = std::find_if(kRefused.begin(), kRefused.end(),
                                      [&](const Refused& known) { return known.method == algorithm.method; });
    if (refused == kRefused.end())
      return fail(fmt::format("the algorithm \"{}\" is not known", algorithm.method),
                  "max, mse and null are carried out");
    return fail(fmt::format("the algorithm {} needs activations: {}", algorithm.method, refused->reason),
                fmt::format("take {}", refused->instead));
  }
  return {};
}

}  // namespace quantport
