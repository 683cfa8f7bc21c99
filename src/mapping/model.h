// The mapping of one checkpoint's model: the registry, resolved for its config.json.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mapping/resolve.h"
#include "quantport/error.h"

namespace quantport {

struct ModelMapping {
  ResolvedModel resolved;
  std::vector<Transform> legacy;  // applied after the others at load, to every model
  std::string version;            // whose mapping it is, "transformers 5.17.0"
  std::string version_reason;     // why that one, "config.json states 5.17.0"
  PatternRules pattern_rules = PatternRules::kAnywhere;
};

// `mapping_text` and `mapping_file` are of a mapping file to use instead of the built-in ones; empty for those. Of the
// built-in ones, `transformers_version` names the one to use; without it config.json decides (ChooseVersion).
Result<ModelMapping> ResolveMapping(std::string_view config_text, std::string_view config_file,
                                    std::string_view mapping_text, std::string_view mapping_file,
                                    const std::optional<std::string>& architecture,
                                    const std::optional<std::string>& transformers_version = std::nullopt);

}  // namespace quantport
