// bitsandbytes by transformers: 4 or 8 bits, and a list of modules to skip.
#include "dialect/dialect.h"
#include "dialect/reading.h"

namespace quantport {
namespace {

bool Owns(const Json& quantization) { return IsMethod(quantization, "bitsandbytes"); }

ConfigClaims Read(const Json& quantization) {
  WeightScheme scheme{"bitsandbytes"};
  if (TrueAt(quantization, "load_in_4bit")) {
    scheme = {"bitsandbytes 4-bit", {FormatId::kBitsAndBytes4Bit}};
  } else if (TrueAt(quantization, "load_in_8bit")) {
    scheme = {"bitsandbytes 8-bit", {FormatId::kBitsAndBytes8Bit}};
  }
  ConfigClaims claims = GlobalClaims(kBitsAndBytesDialect.name, quantization, std::move(scheme));
  AddExcluded(quantization, {"llm_int8_skip_modules"}, Matching::kSegments, &claims);
  return claims;
}

}  // namespace

extern const Dialect kBitsAndBytesDialect = {"bitsandbytes", Owns, Read};

}  // namespace quantport
