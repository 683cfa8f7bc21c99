// The modules of a checkpoint as a tree that fits a terminal.
#pragma once

#include <string>
#include <vector>

#include "quantport/quantport.h"

namespace quantport {

// A line for each subtree: name, formats, bytes, and its shape or number of weights. Numbered siblings that are alike
// in formats and shapes are one line, "experts.0-255"; so are chains of modules with a single child.
std::string ModuleTree(const std::vector<InspectModule>& modules, const InspectTextOptions& options);

}  // namespace quantport
