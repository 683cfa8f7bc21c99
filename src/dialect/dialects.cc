#include <fmt/format.h>

#include <array>
#include <optional>

#include "dialect/dialect.h"
#include "dialect/quantization_json.h"
#include "dialect/reading.h"

namespace quantport {
namespace {

// ModelOpt is last: its hf_quant_config.json states no method, and neither do some of its config.json.
constexpr std::array<const Dialect*, 9> kDialects = {
    &kCompressedTensorsDialect, &kFineGrainedFp8Dialect, &kGptOssDialect,    &kGptqDialect,     &kAwqDialect,
    &kBitsAndBytesDialect,      &kQuarkDialect,          &kAutoRoundDialect, &kModelOptDialect,
};

ConfigClaims ReadUnknown(const Json& quantization) {
  const std::string method = StringAt(quantization, "quant_method");
  WeightScheme scheme{method};
  scheme.group_size = SizeAt(quantization, "group_size");
  scheme.bits = SizeAt(quantization, "bits");
  scheme.tile = TileAt(quantization, "weight_block_size");
  ConfigClaims claims = GlobalClaims(method, quantization, std::move(scheme));
  claims.otherwise = Says::kNothing;
  return claims;
}

// What is no object would be taken for no quantization at all.
Status CheckIsObject(const Json& config, std::string_view file) {
  const auto text = config.find("text_config");
  for (const Json* parent : {&config, text == config.end() ? nullptr : &*text}) {
    if (parent == nullptr || !parent->is_object()) continue;
    for (const char* key : {"quantization_config", "compression_config"}) {
      const auto it = parent->find(key);
      if (it == parent->end() || it->is_null() || it->is_object()) continue;
      return Error{ErrorKind::kInvalidConfig,
                   fmt::format("\"{}\" is no JSON object", key),
                   std::string(file),
                   {},
                   "take it from the producer of the checkpoint, or remove it where nothing is quantized"};
    }
  }
  return {};
}

}  // namespace

const Dialect* FindDialect(const Json& quantization) {
  for (const Dialect* dialect : kDialects) {
    if (dialect->owns(quantization)) return dialect;
  }
  return nullptr;
}

Result<std::optional<ConfigClaims>> ReadClaims(const std::string& text, std::string_view file) {
  auto json = ParseJson(text, file, ErrorKind::kInvalidConfig);
  if (!json) return json.errors();
  if (!json->is_object()) return Error{ErrorKind::kInvalidConfig, "not a JSON object", std::string(file), {}, {}};
  if (auto status = CheckIsObject(*json, file); !status) return status.errors();
  std::vector<Json*> found = FindQuantizations(&*json);
  if (found.empty()) return std::optional<ConfigClaims>();
  const Dialect* dialect = FindDialect(*found.front());
  return std::optional(dialect != nullptr ? dialect->read(*found.front()) : ReadUnknown(*found.front()));
}

}  // namespace quantport
