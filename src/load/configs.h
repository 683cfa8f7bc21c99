// The config files of a checkpoint and what they say of its quantization.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "config/references.h"
#include "layout/layouts.h"
#include "layout/recognize.h"
#include "quantport/error.h"

namespace quantport {

inline constexpr std::string_view kConfigName = "config.json";
inline constexpr std::string_view kQuantConfigName = "hf_quant_config.json";

struct ConfigFiles {
  std::string config_text;                                // of config.json
  std::map<std::string, std::string> quantization_files;  // name -> text of those that may hold module references
  std::map<std::string, QuantScheme> schemes;             // of each of them that describes a quantization
  QuantScheme scheme;                                     // of all together
};

// RecognizeUnits with all that helps: what the configs say, and the bytes of small tensors that say how others are
// stored. Errors: as RecognizeUnits; kIo where one of these can't be read.
Result<std::vector<WeightUnit>> RecognizeCheckpoint(const Checkpoint& checkpoint, const ConfigFiles& configs);
// What the configs alone say.
RecognizeOptions RecognizeOptionsOf(const QuantScheme& scheme);

// Errors: kIo where config.json is missing or unreadable, kInvalidConfig.
Result<ConfigFiles> ReadConfigs(const Checkpoint& checkpoint);

// Whether one of these errors of ReadConfigs is of a file that is there and can't be read. The others tell of what configs
// hold or that there are none, with which a checkpoint can still be looked at.
bool AnyUnreadable(const Errors& errors, const Checkpoint& checkpoint);

// The text of the config file `name`. Errors: kIo.
Result<std::string> ReadConfigText(const Folder& folder, std::string_view name);

// Adds the text of the file `name`, which errors call `file`. Of texts that speak of the same, the first is taken, so
// that config.json comes first. Errors: kInvalidConfig.
Status AddConfig(std::string_view name, const std::string& file, std::string text, ConfigFiles* configs);

}  // namespace quantport
