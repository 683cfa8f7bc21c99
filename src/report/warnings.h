// Warnings as JSON, for every report that has them.
#pragma once

#include <vector>

#include "base/json.h"
#include "quantport/warning.h"

namespace quantport {

Json WarningList(const std::vector<Warning>& warnings);

}  // namespace quantport
