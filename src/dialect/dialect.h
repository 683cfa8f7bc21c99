// How a producer spells a quantization. One file a producer; the table is in dialects.cc.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/json.h"
#include "dialect/claims.h"
#include "quantport/error.h"

namespace quantport {

struct Dialect {
  std::string_view name;  // as quant_method has it
  // Whether the object of a config file that describes a quantization is this producer's.
  bool (*owns)(const Json& quantization);
  // What it says of the modules; names, schemes and rules as the producer's own library reads them.
  ConfigClaims (*read)(const Json& quantization);
};

extern const Dialect kModelOptDialect;
extern const Dialect kCompressedTensorsDialect;
extern const Dialect kFineGrainedFp8Dialect;
extern const Dialect kGptOssDialect;
extern const Dialect kGptqDialect;
extern const Dialect kAwqDialect;
extern const Dialect kBitsAndBytesDialect;
extern const Dialect kQuarkDialect;
extern const Dialect kAutoRoundDialect;

// The first whose own the object is; null for producers that are not known.
const Dialect* FindDialect(const Json& quantization);

// The claims of a config.json (`quantization_config`, also below text_config) or hf_quant_config.json text; nothing
// where it describes no quantization. Of a producer that is not known, sizes that go by the usual names.
// Errors: kInvalidConfig naming `file`.
Result<std::optional<ConfigClaims>> ReadClaims(const std::string& text, std::string_view file);

}  // namespace quantport
