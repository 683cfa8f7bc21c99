// AutoAWQ: one scheme for the linears of the decoder's blocks, and a list of what is left out.
#include <array>

#include "dialect/dialect.h"
#include "dialect/reading.h"

namespace quantport {
namespace {

bool Owns(const Json& quantization) {
  if (IsMethod(quantization, "awq")) return true;
  // quant_config.json states no method, and calls its keys otherwise.
  return StringAt(quantization, "quant_method").empty() && quantization.contains("zero_point") &&
         (quantization.contains("w_bit") || quantization.contains("bits"));
}

ConfigClaims Read(const Json& quantization) {
  WeightScheme scheme{"awq"};
  // GEMV and others lay out their words otherwise.
  if (EqualsIgnoringCase(StringAt(quantization, "version"), "gemm")) scheme.formats = {FormatId::kAwq};
  for (const char* key : {"group_size", "q_group_size"}) {
    if (scheme.group_size == 0) scheme.group_size = SizeAt(quantization, key);
  }
  for (const char* key : {"bits", "w_bit"}) {
    if (scheme.bits == 0) scheme.bits = SizeAt(quantization, key);
  }
  ConfigClaims claims = GlobalClaims(kAwqDialect.name, quantization, std::move(scheme));
  claims.decoder_only = true;
  AddExcluded(quantization, {"modules_to_not_convert"}, Matching::kSegments, &claims);
  return claims;
}

}  // namespace

extern const Dialect kAwqDialect = {"awq", Owns, Read};

}  // namespace quantport
