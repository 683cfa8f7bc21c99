// GPTQ, as GPTQModel, AutoGPTQ and optimum write it: one scheme for the linears of the decoder's blocks, and
// overrides by regular expressions.
#include <cctype>

#include "dialect/dialect.h"
#include "dialect/entry.h"
#include "dialect/reading.h"

namespace quantport {
namespace {

bool Owns(const Json& quantization) {
  if (IsMethod(quantization, "gptq")) return true;
  // quantize_config.json states no method.
  return StringAt(quantization, "quant_method").empty() && quantization.contains("bits") &&
         quantization.contains("group_size") && quantization.contains("desc_act");
}

std::string Variant(const Json& quantization) {
  std::string variant = StringAt(quantization, "checkpoint_format");
  if (variant.empty()) variant = StringAt(quantization, "format");
  for (char& c : variant) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return variant;
}

WeightScheme SchemeOf(const Json& quantization) {
  const std::string variant = Variant(quantization);
  WeightScheme scheme{"gptq"};
  // Others (Marlin's) lay out their words otherwise.
  if (variant.empty() || variant.starts_with("GPTQ")) scheme.formats = {FormatId::kGptq};
  scheme.group_size = SizeAt(quantization, "group_size");
  scheme.bits = SizeAt(quantization, "bits");
  const auto order = quantization.find("desc_act");
  scheme.ordered_groups = order != quantization.end() && order->is_boolean() && !order->get<bool>();
  scheme.zeros_less_one = !variant.starts_with("GPTQ_V2");
  return scheme;
}

// "-:" leaves modules alone, "+:" or nothing overrides; the first that matches counts.
void AddDynamic(const Json& quantization, ConfigClaims* claims) {
  for (const auto& [pattern, overrides] : ObjectAt(quantization, "dynamic").items()) {
    const std::string_view sign = SignOf(pattern, EntrySyntax::kSigned);
    std::string expression = pattern.substr(sign.size());
    if (sign == "-:") {
      claims->rules.push_back({std::move(expression), Matching::kRegexStart, Says::kPlain, 0});
      continue;
    }
    WeightScheme scheme = claims->schemes.front();
    if (const uint64_t bits = SizeAt(overrides, "bits"); bits > 0) scheme.bits = bits;
    if (overrides.contains("group_size")) scheme.group_size = SizeAt(overrides, "group_size");
    claims->rules.push_back({std::move(expression), Matching::kRegexStart, Says::kQuantized,
                             static_cast<uint32_t>(claims->schemes.size())});
    claims->schemes.push_back(std::move(scheme));
  }
}

ConfigClaims Read(const Json& quantization) {
  ConfigClaims claims = GlobalClaims(kGptqDialect.name, quantization, SchemeOf(quantization));
  claims.decoder_only = true;
  AddDynamic(quantization, &claims);
  AddExcluded(quantization, {"modules_to_not_convert"}, Matching::kSegments, &claims);
  std::vector<std::string> chosen;
  AppendNestedStrings(quantization, "modules_in_block_to_quantize", &chosen);
  for (std::string& entry : chosen) claims.rules.push_back({std::move(entry), Matching::kEnd, Says::kQuantized, 0});
  // What a list of the modules to quantize lacks is left alone; of the output head another key speaks.
  if (!chosen.empty()) claims.otherwise = TrueAt(quantization, "lm_head") ? Says::kEither : Says::kPlain;
  return claims;
}

}  // namespace

extern const Dialect kGptqDialect = {"gptq", Owns, Read};

}  // namespace quantport
