// NVIDIA ModelOpt: an algorithm and a list of what is left out, or in mixed precision a list of layers.
#include "dialect/modelopt.h"

#include <algorithm>
#include <array>
#include <unordered_map>

#include "dialect/dialect.h"
#include "dialect/entry.h"
#include "dialect/format_sets.h"
#include "dialect/reading.h"

namespace quantport {
namespace {

// hf_quant_config.json states no method, and config.json of older exports states the algorithm alone.
bool Owns(const Json& quantization) {
  return IsMethod(quantization, "modelopt") || IsMethod(quantization, "modelopt_fp4") ||
         (StringAt(quantization, "quant_method").empty() && quantization.contains("quant_algo"));
}

FormatSet FormatsOf(std::string_view algorithm) {
  struct Row {
    std::string_view name;
    FormatSet (*formats)();
  };
  static constexpr auto kMxfp8 = [] { return FormatSet{FormatId::kMxfp8}; };
  static constexpr auto kMxfp4 = [] {
    return FormatSet{FormatId::kMxfp4Blocks, FormatId::kMxfp4, FormatId::kW4A8Mxfp4Fp8};
  };
  static constexpr std::array<Row, 17> kRows = {{
      {"FP8", Fp8Formats},
      {"FP8_PER_CHANNEL_PER_TOKEN", Fp8Formats},
      {"FP8_PB_WO", Fp8Formats},
      {"FP8_PB_REAL", Fp8Formats},
      {"NVFP4", Nvfp4Formats},
      {"W4A16_NVFP4", Nvfp4Formats},
      {"NVFP4_AWQ", Nvfp4Formats},
      {"NVFP4_SVD", Nvfp4Formats},
      {"W4A8_NVFP4_FP8", Nvfp4Formats},
      {"MXFP8", kMxfp8},
      {"MXFP4", kMxfp4},
      {"W4A8_MXFP4_FP8", Mxfp4Formats},
      {"W4A16_AWQ", Int4Formats},
      {"INT4_AWQ", Int4Formats},
      {"W4A8_AWQ", Int4Formats},
      {"W8A16", Int8Formats},
      {"W8A8_SQ_PER_CHANNEL", Int8Formats},
  }};
  const auto row =
      std::find_if(kRows.begin(), kRows.end(), [&](const Row& r) { return EqualsIgnoringCase(r.name, algorithm); });
  return row == kRows.end() ? FormatSet() : row->formats();
}

WeightScheme SchemeOf(const std::string& algorithm, uint64_t group_size) {
  WeightScheme scheme{algorithm, FormatsOf(algorithm)};
  scheme.group_size = group_size;
  return scheme;
}

// The group size that config.json has in its group alone.
uint64_t GroupSizeOf(const Json& quantization) {
  uint64_t size = SizeAt(quantization, "group_size");
  for (const auto& [name, group] : ObjectAt(quantization, "config_groups").items()) {
    if (size == 0 && group.is_object()) size = SizeAt(ObjectAt(group, "weights"), "group_size");
  }
  return size;
}

bool IsMixed(const Json& quantization) {
  return !ObjectAt(quantization, "quantized_layers").empty() ||
         EqualsIgnoringCase(StringAt(quantization, "quant_algo"), "MIXED_PRECISION");
}

// Where no algorithm is stated: null says that nothing but a KV cache is quantized, silence says nothing.
Says WithoutAlgorithm(const Json& quantization) {
  const auto algorithm = quantization.find("quant_algo");
  const bool null = algorithm != quantization.end() && algorithm->is_null();
  return null && ObjectAt(quantization, "config_groups").empty() ? Says::kPlain : Says::kNothing;
}

ConfigClaims Read(const Json& quantization) {
  const std::string algorithm = StringAt(quantization, "quant_algo");
  ConfigClaims claims =
      GlobalClaims(kModelOptDialect.name, quantization, SchemeOf(algorithm, GroupSizeOf(quantization)));
  AddMixedExcluded(quantization, {"exclude_modules", "ignore"}, &claims);
  if (IsMixed(quantization)) {
    claims.schemes.front() = WeightScheme{algorithm};
    AddQuantizedLayers(quantization, &claims);
    // config.json of older exports has the layers in groups only.
    const bool listed = quantization.contains("quantized_layers");
    claims.otherwise = listed ? Says::kPlain : Says::kNothing;
    return claims;
  }
  claims.convolutions = true;
  if (algorithm.empty()) claims.otherwise = WithoutAlgorithm(quantization);
  // ModelOpt reads a name as that of one module. Published lists also hold names of towers, which some engines take to
  // cover what lies below.
  for (size_t i = 0; i < claims.excludes.size(); ++i) {
    if (!IsGlob(claims.excludes[i]) && !IsRegex(claims.excludes[i]))
      claims.rules.push_back({claims.excludes[i], Matching::kBelow, Says::kEither, 0});
  }
  return claims;
}

}  // namespace

void AddQuantizedLayers(const Json& quantization, ConfigClaims* claims) {
  // Layers by the thousand have few schemes between them.
  std::unordered_map<std::string, uint32_t> known;
  std::vector<Rule> containers;
  for (const auto& [entry, layer] : ObjectAt(quantization, "quantized_layers").items()) {
    const std::string algorithm = layer.is_object() ? StringAt(layer, "quant_algo") : std::string();
    const uint64_t group_size = layer.is_object() ? SizeAt(layer, "group_size") : 0;
    const auto [scheme, fresh] =
        known.emplace(algorithm + " " + std::to_string(group_size), static_cast<uint32_t>(claims->schemes.size()));
    if (fresh) claims->schemes.push_back(SchemeOf(algorithm, group_size));
    claims->rules.push_back(
        {entry, IsGlob(entry) ? Matching::kGlob : Matching::kExact, Says::kQuantized, scheme->second});
    if (!IsGlob(entry)) containers.push_back({entry, Matching::kBelow, Says::kQuantized, scheme->second});
  }
  // A layer's own entry counts before that of a container.
  for (Rule& rule : containers) claims->rules.push_back(std::move(rule));
}

extern const Dialect kModelOptDialect = {"modelopt", Owns, Read};

}  // namespace quantport
