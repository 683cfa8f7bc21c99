// llm-compressor and others by the compressed-tensors library: groups with targets, and a list of what is ignored.
#include <algorithm>

#include "dialect/dialect.h"
#include "dialect/entry.h"
#include "dialect/format_sets.h"
#include "dialect/reading.h"

namespace quantport {
namespace {

bool Owns(const Json& quantization) { return IsMethod(quantization, "compressed-tensors"); }

FormatSet FormatsOf(std::string_view format) {
  if (format == "float-quantized") return Fp8Formats();
  if (format == "int-quantized") return Int8Formats();
  if (format == "pack-quantized") return {FormatId::kPackQuantized};
  if (format == "nvfp4-pack-quantized") return {FormatId::kNvfp4Pack};
  if (format == "mxfp4-pack-quantized") return {FormatId::kMxfp4Pack};
  if (format == "mxfp8-quantized") return {FormatId::kMxfp8};
  if (format == "naive-quantized") {
    FormatSet formats = Fp8Formats();
    for (const FormatId int8 : Int8Formats()) formats.push_back(int8);
    formats.push_back(FormatId::kMxfp8);
    return formats;
  }
  return {};
}

WeightScheme SchemeOf(const Json& group, const std::string& top_format) {
  WeightScheme scheme{StringAt(group, "format")};
  if (scheme.name.empty()) scheme.name = top_format;
  scheme.formats = FormatsOf(scheme.name);
  const Json& weights = ObjectAt(group, "weights");
  scheme.group_size = SizeAt(weights, "group_size");
  scheme.bits = SizeAt(weights, "num_bits");
  scheme.tile = TileAt(weights, "block_structure");
  const std::string strategy = StringAt(weights, "strategy");
  if (strategy == "tensor") scheme.shares = Granularity::kTensor;
  if (strategy == "channel") scheme.shares = Granularity::kRows;
  const bool inferred = strategy.empty() && scheme.group_size > 0;
  if (strategy == "group" || strategy == "tensor_group" || inferred) scheme.shares = Granularity::kGroups;
  return scheme;
}

// match_targets: names before expressions before classes, each kind in its order.
int Precedence(const Rule& rule) {
  return rule.matching == Matching::kExact ? 0 : rule.matching == Matching::kRegexStart ? 1 : 2;
}

Rule RuleOf(std::string entry, Says says, uint32_t scheme) {
  if (IsRegex(entry)) return {std::move(entry), Matching::kRegexStart, says, scheme};
  const Matching matching = IsClassName(entry) ? Matching::kClass : Matching::kExact;
  return {std::move(entry), matching, says, scheme};
}

bool IsKnownClass(std::string_view name) { return name == "Linear" || name == "Embedding" || name.starts_with("Conv"); }

ConfigClaims Read(const Json& quantization) {
  ConfigClaims claims;
  claims.method = kCompressedTensorsDialect.name;
  claims.algorithm = claims.method;
  const std::string top_format = StringAt(quantization, "format");
  std::vector<Rule> targets;
  // What no target names is left alone, unless targets are of classes that tensors do not tell.
  claims.otherwise = Says::kPlain;
  for (const auto& [name, group] : ObjectAt(quantization, "config_groups").items()) {
    if (!group.is_object()) continue;
    const auto scheme = static_cast<uint32_t>(claims.schemes.size());
    claims.schemes.push_back(SchemeOf(group, top_format));
    std::vector<std::string> entries;
    AppendStrings(group, "targets", &entries);
    // A group for activations or the KV cache alone says nothing of weights.
    const bool weights = !ObjectAt(group, "weights").empty();
    for (std::string& entry : entries) {
      if (IsClassName(entry) && !IsKnownClass(entry)) claims.otherwise = Says::kNothing;
      targets.push_back(RuleOf(std::move(entry), weights ? Says::kQuantized : Says::kNothing, scheme));
    }
  }
  if (claims.schemes.empty()) {
    claims.schemes.push_back(SchemeOf(Json::object(), top_format));
    claims.otherwise = Says::kEither;
  } else if (targets.empty()) {
    claims.otherwise = Says::kNothing;
  }
  std::vector<std::string> ignored;
  AppendStrings(quantization, "ignore", &ignored);
  for (std::string& entry : ignored) {
    claims.excludes.push_back(entry);
    claims.rules.push_back(RuleOf(std::move(entry), Says::kPlain, 0));
  }
  std::stable_sort(targets.begin(), targets.end(),
                   [](const Rule& a, const Rule& b) { return Precedence(a) < Precedence(b); });
  for (Rule& target : targets) claims.rules.push_back(std::move(target));
  return claims;
}

}  // namespace

extern const Dialect kCompressedTensorsDialect = {"compressed-tensors", Owns, Read};

}  // namespace quantport
