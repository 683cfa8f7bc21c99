// What ModelOpt calls each format and how its configs describe it: one line a format.
#pragma once

#include <optional>
#include <string_view>

#include "base/json.h"
#include "format/format_id.h"

namespace quantport {

// One side of a config group, as _quant_algo_to_group_config describes it.
struct ModelOptNumbers {
  int bits = 8;
  std::string_view type = "float";
  int group_size = 0;  // where the layer's config states none; 0: no groups
  bool per_channel = false;
};

struct ModelOptFormat {
  FormatId format = FormatId::kPlain;
  std::string_view name;        // as get_quantization_format says it, and recipes and reports: "w4a16_nvfp4"
  std::string_view quant_algo;  // in both config files
  bool group_size = false;      // stands beside quant_algo
  bool awq_flags = false;       // constants of ModelOpt's, whatever the tensors are
  std::optional<ModelOptNumbers> inputs = {};
  std::optional<ModelOptNumbers> weights = {};  // nothing: ModelOpt knows no group for it
};

// The format's line; null where ModelOpt exports none of it.
const ModelOptFormat* FindModelOptFormat(FormatId format);

// "fp8"; "" where there is no line.
std::string_view ModelOptFormatName(FormatId format);

// The group of config.json for one quant_algo; what ModelOpt has no group for is named alone. `group_size`: 0 where the
// layer's config states none.
Json ModelOptGroup(std::string_view quant_algo, int group_size);

}  // namespace quantport
