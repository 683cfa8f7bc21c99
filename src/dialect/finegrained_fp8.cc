// transformers' fine-grained FP8, as DeepSeek, Qwen and others publish it: one scheme, and a list of what is left out.
#include "dialect/dialect.h"
#include "dialect/format_sets.h"
#include "dialect/modelopt.h"
#include "dialect/reading.h"

namespace quantport {
namespace {

// transformers reads both with one quantizer.
bool Owns(const Json& quantization) { return IsMethod(quantization, "fp8") || IsMethod(quantization, "mxfp8"); }

ConfigClaims Read(const Json& quantization) {
  WeightScheme scheme{StringAt(quantization, "quant_method"), Fp8Formats()};
  for (const FormatId format : {FormatId::kMxfp8, FormatId::kFp4Block, FormatId::kMxfp4})
    scheme.formats.push_back(format);
  scheme.tile = TileAt(quantization, "weight_block_size");
  ConfigClaims claims = GlobalClaims(kFineGrainedFp8Dialect.name, quantization, std::move(scheme));
  if (ObjectAt(quantization, "quantized_layers").empty()) {
    AddExcluded(quantization, {"modules_to_not_convert", "ignored_layers"}, Matching::kSegments, &claims);
    return claims;
  }
  // DeepSeek-V4-Pro in NVFP4: experts that ModelOpt quantized in a checkpoint that stays FP8 otherwise. The list of
  // modules left alone is ModelOpt's, and means left as they were.
  AddQuantizedLayers(quantization, &claims);
  claims.otherwise = Says::kEither;
  claims.partial = true;
  return claims;
}

}  // namespace

extern const Dialect kFineGrainedFp8Dialect = {"fp8", Owns, Read};

}  // namespace quantport
