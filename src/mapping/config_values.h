// What a mapping takes from a model's config.json beyond its composition.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/json.h"
#include "mapping/resolve.h"

namespace quantport {

// How many experts a container has, as `config` of its model says: the numbers under whichever keys the model's class
// uses, or those of its text_config. Null and 0, and keys that are not there, say nothing.
std::vector<ExpertCount> ExpertCounts(const Json& config);

// How many layers the text model has; absent where `config` does not say.
std::optional<uint64_t> HiddenLayers(const Json& config);

// Fills the layer count, the tying of embeddings, and the numbers of the operations that need some, as far as `config`
// has them; an operation that lacks its number can't be carried out, and says so when it is met.
void FillConfigValues(const Json& config, ResolvedModel* model);

}  // namespace quantport
