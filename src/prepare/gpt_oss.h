// MXFP4 of gpt-oss as its hub and every engine have it: experts in blocks, all else plain, and a config of its own.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "plan/memory_modules.h"
#include "quantport/error.h"
#include "quantport/warning.h"
#include "recipe/resolve.h"

namespace quantport {

// Where `config` is gpt-oss's and the recipe gives its experts MXFP4, they get MXFP4 in blocks, and linears that would
// be MXFP4 as well stay as they are, with a warning: true. False elsewhere, and nothing is changed. Errors:
// kUnsupportedRecipe for anything else that the recipe quantizes beside them, since that config can't say it.
Result<bool> KeepGptOssForm(const std::string& config, const std::string& recipe, ResolvedRecipe* resolved,
                            std::vector<Warning>* warnings);

// What config.json then says: the method, and the modules left alone, layers as "*".
Json GptOssQuantization(const MemoryModel& memory, const ResolvedRecipe& resolved);

}  // namespace quantport
