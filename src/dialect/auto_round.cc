// Intel's auto-round: one scheme for the blocks it names, and overrides by name or regular expression.
#include <algorithm>

#include "dialect/dialect.h"
#include "dialect/entry.h"
#include "dialect/reading.h"

namespace quantport {
namespace {

constexpr uint64_t kUnquantizedBits = 16;

bool Owns(const Json& quantization) {
  return IsMethod(quantization, "auto-round") || IsMethod(quantization, "intel/auto-round");
}

WeightScheme SchemeOf(const Json& quantization) {
  const std::string packing = StringAt(quantization, "packing_format");
  WeightScheme scheme{"auto-round"};
  if (packing.find("awq") != std::string::npos) {
    scheme.formats = {FormatId::kAwq};
  } else if (packing.find("gptq") != std::string::npos) {
    scheme.formats = {FormatId::kGptq};
    scheme.zeros_less_one = true;
  }
  scheme.group_size = SizeAt(quantization, "group_size");
  scheme.bits = SizeAt(quantization, "bits");
  return scheme;
}

void AddOverride(const std::string& entry, const Json& config, ConfigClaims* claims) {
  const Matching matching = MatchingOf(entry, EntrySyntax::kSearched);
  const uint64_t bits = SizeAt(config, "bits");
  if (bits >= kUnquantizedBits) {
    claims->rules.push_back({entry, matching, Says::kPlain, 0});
    return;
  }
  WeightScheme scheme = claims->schemes.front();
  if (bits > 0) scheme.bits = bits;
  if (config.contains("group_size")) scheme.group_size = SizeAt(config, "group_size");
  claims->rules.push_back({entry, matching, Says::kQuantized, static_cast<uint32_t>(claims->schemes.size())});
  claims->schemes.push_back(std::move(scheme));
}

// Names of blocks, with commas between them where they are one text.
void AddBlocks(const Json& quantization, ConfigClaims* claims) {
  std::vector<std::string> blocks;
  for (const char* key : {"block_name_to_quantize", "to_quant_block_names"})
    AppendNestedStrings(quantization, key, &blocks);
  for (const std::string& text : blocks) {
    for (size_t begin = 0; begin <= text.size();) {
      const size_t comma = std::min(text.find(',', begin), text.size());
      if (comma > begin) {
        std::string name = text.substr(begin, comma - begin) + ".*";
        claims->rules.push_back({std::move(name), Matching::kGlob, Says::kQuantized, 0});
      }
      begin = comma + 1;
    }
  }
  if (!blocks.empty()) claims->otherwise = Says::kEither;
}

ConfigClaims Read(const Json& quantization) {
  ConfigClaims claims = GlobalClaims(kAutoRoundDialect.name, quantization, SchemeOf(quantization));
  claims.decoder_only = true;
  // A name counts before any expression.
  const Json& extra = ObjectAt(quantization, "extra_config");
  for (const bool expressions : {false, true}) {
    for (const auto& [entry, config] : extra.items()) {
      if (HasSpecialCharacters(entry) == expressions && config.is_object()) AddOverride(entry, config, &claims);
    }
  }
  AddExcluded(quantization, {"modules_to_not_convert"}, Matching::kSegments, &claims);
  AddBlocks(quantization, &claims);
  return claims;
}

}  // namespace

extern const Dialect kAutoRoundDialect = {"auto-round", Owns, Read};

}  // namespace quantport
