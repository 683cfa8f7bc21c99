// The two places where ModelOpt's export says how a checkpoint is quantized: hf_quant_config.json, and the
// quantization_config of config.json, as its get_quant_config and convert_hf_quant_config_format make them.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "format/format_id.h"
#include "quantport/error.h"

namespace quantport {

// The version whose export is reproduced; consumers look for the producer's name.
inline constexpr std::string_view kModelOptVersion = "0.47.0";

// A module that carries a weight quantizer, or a router that never has one, in the order of the model's modules; the
// experts of a fused container are one module, the container.
struct QuantizedModule {
  std::string name;  // in memory
  FormatId format = FormatId::kPlain;
  int block_size = 0;
};

// The prefixes that stand for all modules left alone, sorted: "prefix*" where no quantized module's name begins with
// that, else "prefix.*" where none lies below, else the name itself; at the shortest prefix that serves.
std::vector<std::string> SummarizeExcluded(const std::vector<std::string>& excluded,
                                           const std::vector<std::string>& quantized);

// What hf_quant_config.json holds; null where nothing is quantized, and then no file is written. `hub_name` maps a
// module's path in memory to the hub's; wildcards at the end are kept from it.
Json HfQuantConfig(const std::vector<QuantizedModule>& modules, std::string_view kv_cache,
                   const std::function<std::string(const std::string&)>& hub_name);

// The same as config.json says it.
Json QuantizationConfig(const Json& hf_quant_config);

// The text of config.json with it, laid out as ModelOpt does. Errors: kInvalidConfig naming `file`.
Result<std::string> WithQuantizationConfig(const std::string& config, std::string_view file,
                                           const Json& quantization_config);

// How ModelOpt lays out both files.
inline constexpr JsonStyle kModelOptStyle = {4, false, true};

}  // namespace quantport
