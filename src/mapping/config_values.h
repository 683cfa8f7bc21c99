// Numbers that operations take from a model's config.json.
#pragma once

#include <vector>

#include "base/json.h"
#include "mapping/transform.h"

namespace quantport {

// Fills num_shards and num_heads of the operations that need them, as far as `config` has them; an operation that
// lacks its number can't be carried out, and says so when it is met.
void FillConfigValues(const Json& config, std::vector<Transform>* transforms);

}  // namespace quantport
