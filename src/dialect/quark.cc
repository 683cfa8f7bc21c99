// AMD Quark: a global scheme, schemes for layers and for classes of layers, and a list of what is left out.
#include "dialect/dialect.h"
#include "dialect/entry.h"
#include "dialect/format_sets.h"
#include "dialect/reading.h"

namespace quantport {
namespace {

bool Owns(const Json& quantization) { return IsMethod(quantization, "quark"); }

// Two specifications, one of scales above the other, are NVFP4.
WeightScheme SchemeOf(const Json& config) {
  const auto weight = config.find("weight");
  if (weight == config.end()) return {"quark"};
  const bool two = weight->is_array() && weight->size() == 2;
  const Json& spec = weight->is_array() && !weight->empty() ? weight->front() : *weight;
  if (!spec.is_object()) return {"quark"};
  const std::string dtype = StringAt(spec, "dtype");
  const std::string scales = StringAt(spec, "scale_format");
  WeightScheme scheme{"quark " + dtype};
  scheme.group_size = SizeAt(spec, "group_size");
  const std::string shares = StringAt(spec, "qscheme");
  if (shares == "per_tensor") scheme.shares = Granularity::kTensor;
  if (shares == "per_channel") scheme.shares = Granularity::kRows;
  if (shares == "per_group") scheme.shares = Granularity::kGroups;
  if (dtype == "fp4" && two) scheme.formats = Nvfp4Formats();
  if (dtype == "fp4" && scales == "e8m0") scheme.formats = Mxfp4Formats();
  if (dtype == "fp8_e4m3" && scales == "e8m0") scheme.formats = {FormatId::kMxfp8};
  if (dtype == "fp8_e4m3" && shares != "per_group") scheme.formats = Fp8Formats();
  if (dtype == "int8") scheme.formats = Int8Formats();
  return scheme;
}

bool HasWeights(const Json& config) {
  const auto weight = config.find("weight");
  return weight != config.end() && !weight->is_null();
}

// `config`: null for modules left alone.
void AddRule(std::string entry, Matching matching, const Json& config, ConfigClaims* claims) {
  const bool quantized = config.is_object() && HasWeights(config);
  claims->rules.push_back({std::move(entry), matching, quantized ? Says::kQuantized : Says::kPlain,
                           static_cast<uint32_t>(claims->schemes.size())});
  claims->schemes.push_back(quantized ? SchemeOf(config) : WeightScheme{"quark"});
}

ConfigClaims Read(const Json& quantization) {
  const Json& global = ObjectAt(quantization, "global_quant_config");
  ConfigClaims claims = GlobalClaims(kQuarkDialect.name, quantization, SchemeOf(global));
  if (!HasWeights(global)) claims.otherwise = Says::kNothing;
  AddMixedExcluded(quantization, {"exclude"}, &claims);
  // A name is looked up before patterns are tried.
  const Json& layers = ObjectAt(quantization, "layer_quant_config");
  for (const auto& [entry, config] : layers.items()) {
    if (!IsGlob(entry)) AddRule(entry, Matching::kExact, config, &claims);
  }
  for (const auto& [entry, config] : layers.items()) {
    if (IsGlob(entry)) AddRule(entry, Matching::kGlob, config, &claims);
  }
  for (const auto& [entry, config] : ObjectAt(quantization, "layer_type_quant_config").items())
    AddRule(entry, Matching::kClass, config, &claims);
  return claims;
}

}  // namespace

extern const Dialect kQuarkDialect = {"quark", Owns, Read};

}  // namespace quantport
