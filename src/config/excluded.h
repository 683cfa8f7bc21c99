// Adds modules to the lists of what a config leaves unquantized.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "dialect/module_names.h"
#include "quantport/error.h"

namespace quantport {

// Entries for `modules` in every exclude list of a config file's text, where none of the list's entries covers them
// yet. `others`: the modules that must stay quantized; a whole sub-tree without any of them becomes one entry, "mtp.*",
// or a regular expression in compressed-tensors' own list, which knows no globs. A file without such a list stays as it
// is. Errors: kInvalidConfig naming `file`, kCancelled.
Result<std::string> AddExcluded(const std::string& text, std::string_view file, const std::vector<std::string>& modules,
                                const std::vector<std::string>& others, MatchBudget* budget);

// Every exclude list of a config file's text without the modules `quantized`: an entry that covers one of them is
// replaced by entries for those of `others` that it covers as well. Errors: kInvalidConfig naming `file`, kCancelled.
Result<std::string> DropExcluded(const std::string& text, std::string_view file,
                                 const std::vector<std::string>& quantized, const std::vector<std::string>& others,
                                 MatchBudget* budget);

}  // namespace quantport
