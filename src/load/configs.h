// The config files of a checkpoint and what they say of its quantization.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "dialect/claims.h"
#include "layout/layouts.h"
#include "layout/recognize.h"
#include "quantport/error.h"

namespace quantport {

inline constexpr std::string_view kConfigName = "config.json";
inline constexpr std::string_view kQuantConfigName = "hf_quant_config.json";

// What helps to read tensors, of all configs together. Lists of sizes hold each value once.
struct QuantScheme {
  bool quantized = false;
  std::string quant_algo;                         // for people, "" where unknown
  std::vector<uint64_t> group_sizes;              // values that share a scale
  std::vector<uint64_t> bits;                     // of packed integers
  std::array<uint64_t, 2> fp8_tile = {128, 128};  // rows and columns
  bool states_tile = false;                       // a config does, and 128 x 128 is not just what everyone uses
  bool ordered_groups = false;                    // desc_act is false
  bool zeros_less_one = false;                    // GPTQ before its second format
};

struct ConfigFiles {
  std::string config_text;                                // of config.json
  std::map<std::string, std::string> quantization_files;  // name -> text of those that may hold module references
  std::map<std::string, ConfigClaims> claims;             // of each of them that describes a quantization
  QuantScheme scheme;                                     // of all together
};

// RecognizeUnits with all that helps: what the configs say, and the bytes of small tensors that say how others are
// stored. Errors: as RecognizeUnits; kIo where one of these can't be read.
Result<std::vector<WeightUnit>> RecognizeCheckpoint(const Checkpoint& checkpoint, const ConfigFiles& configs);
// What the configs alone say.
RecognizeOptions RecognizeOptionsOf(const QuantScheme& scheme);

// Errors: kIo where config.json is missing or unreadable, kInvalidConfig.
Result<ConfigFiles> ReadConfigs(const Checkpoint& checkpoint);

// Whether one of these errors of ReadConfigs is of a file that is there and can't be read. The others tell of what
// configs hold or that there are none, with which a checkpoint can still be looked at.
bool AnyUnreadable(const Errors& errors, const Checkpoint& checkpoint);

// The text of the config file `name`. Errors: kIo.
Result<std::string> ReadConfigText(const Folder& folder, std::string_view name);

// Adds the text of the file `name`, which errors call `file`. Of texts that speak of the same, the first is taken, so
// that config.json comes first. Errors: kInvalidConfig.
Status AddConfig(std::string_view name, const std::string& file, std::string text, ConfigFiles* configs);

}  // namespace quantport
