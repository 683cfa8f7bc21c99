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
};

// `mapping_text` and `mapping_file` are of a mapping file to use instead of the built-in registry; empty for that.
Result<ModelMapping> ResolveMapping(std::string_view config_text, std::string_view config_file,
                                    std::string_view mapping_text, std::string_view mapping_file,
                                    const std::optional<std::string>& architecture);

}  // namespace quantport
