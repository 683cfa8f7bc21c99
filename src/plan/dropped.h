// What the hub checkpoint has and the export lacks: which of it is meant to be missing.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "mapping/resolve.h"
#include "quantport/error.h"

namespace quantport {

enum class DroppedKind {
  kTied,    // shares another tensor's storage, as the registry says: saving leaves it out
  kBuffer,  // computed by the model, not trained: old checkpoints store it
  kMtp,     // of the multi-token-prediction layers, which transformers does not load
  kOther,   // missing for no reason that can be seen
};

// For people and JSON: "tied", "buffer", "mtp", "other".
std::string_view DroppedKindName(DroppedKind kind);

struct Dropped {
  std::string key;        // of the hub's tensor
  std::string in_memory;  // what loading calls it
  DroppedKind kind = DroppedKind::kOther;
};

// Sorts hub keys out. Never by bytes or addresses: tied weights are those that the registry names for the class, unless
// the config says that embeddings are not tied. Errors: kInvalidMapping.
Result<std::vector<Dropped>> ClassifyDropped(const std::vector<std::string>& keys, const ResolvedModel& model);

}  // namespace quantport
