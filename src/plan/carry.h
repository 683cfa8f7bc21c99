// Brings tensors that only the reference has into a conversion.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "plan/conversion.h"

namespace quantport {

struct Carried {
  std::vector<std::string> modules;    // of the carried weights that are not quantized
  std::vector<std::string> quantized;  // of those that are, in the reference's own format
};

// Appends the tensors of `keys`, with their companions, of the reference in `directory` to `table` and, under the names
// they have, to `conversion`; takes the keys out of `only_in_reference`. Shards that they come from keep together, each
// as one new shard, where `sharded`; else they join the export's only file.
// Errors: kMissingCompanion where the reference itself is broken, kNameCollision.
Result<Carried> CarryTensors(const std::vector<std::string>& keys, const TensorTable& reference,
                             const std::filesystem::path& directory, bool sharded, TensorTable* table,
                             Conversion* conversion);

}  // namespace quantport
