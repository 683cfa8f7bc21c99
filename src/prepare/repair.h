// What a repair writes: the same tensors under the same names, with one number where engines need one.
#pragma once

#include <string>
#include <vector>

#include "prepare/prepare.h"

namespace quantport {

struct PreparedRepair {
  Prepared prepared;
  std::vector<std::string> mended;  // what was wrong beside scales, a sentence each
};

// Reads headers, configs, and scalars that linears have once. Errors: as Repair.
Result<PreparedRepair> PrepareRepair(const RepairOptions& options, const DataPlaces& places, const Storage& storage);

}  // namespace quantport
