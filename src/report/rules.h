// The transforms that a mapping has for a checkpoint, and what they do to names.
#pragma once

#include <string>
#include <vector>

#include "io/storage.h"
#include "quantport/quantport.h"

namespace quantport {

// The public functions of these names, for a folder of any storage.
Result<RulesReport> Rules(const std::string& checkpoint, const MappingOptions& options, const Storage& storage);
Result<std::vector<ExplainedName>> ExplainNames(const std::string& checkpoint, const std::vector<std::string>& names,
                                                const MappingOptions& options, const Storage& storage);

}  // namespace quantport
