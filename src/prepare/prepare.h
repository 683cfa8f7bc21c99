// From a folder to a plan: headers -> mapping -> names -> plan -> configs, a line a stage. Reads, and writes nothing.
#pragma once

#include <map>
#include <string>

#include "checkpoint/checkpoint.h"
#include "plan/plan.h"
#include "prepare/names.h"
#include "quantport/quantport.h"

namespace quantport {

// Everything a revert has decided before the first byte is written.
struct Prepared {
  Checkpoint checkpoint;
  Plan plan;
  RevertReport report;
};

// Where data is to begin in the files of the plan; see PlanOptions.
struct DataPlaces {
  uint64_t block_bytes = 0;
  bool keep_header_room = false;
};

// `dry`: nothing will be written, so that names which stay undecided are only warned of. Errors: as Revert.
Result<Prepared> Prepare(const RevertOptions& options, Direction direction, const DataPlaces& places,
                         const Storage& storage, bool dry = false);

// As far as names go; nothing is laid out. Errors: as Revert.
Result<RuleComparison> CompareNames(const RevertOptions& options, const Storage& storage);

}  // namespace quantport
