// gpt-oss: experts in MXFP4, all else as it was.
#include "dialect/dialect.h"
#include "dialect/format_sets.h"
#include "dialect/reading.h"

namespace quantport {
namespace {

bool Owns(const Json& quantization) { return IsMethod(quantization, "mxfp4"); }

ConfigClaims Read(const Json& quantization) {
  WeightScheme scheme{"mxfp4", Mxfp4Formats()};
  scheme.formats.push_back(FormatId::kMxfp4Blocks);
  ConfigClaims claims = GlobalClaims(kGptOssDialect.name, quantization, std::move(scheme));
  AddExcluded(quantization, {"modules_to_not_convert"}, Matching::kSegments, &claims);
  claims.rules.push_back({"*.experts", Matching::kGlob, Says::kQuantized, 0});
  claims.otherwise = Says::kEither;
  return claims;
}

}  // namespace

extern const Dialect kGptOssDialect = {"mxfp4", Owns, Read};

}  // namespace quantport
