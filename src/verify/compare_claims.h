// Holds what the configs say of each module against what its tensors are, both ways.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "dialect/module_names.h"
#include "layout/recognize.h"
#include "load/configs.h"
#include "quantport/error.h"
#include "quantport/warning.h"

namespace quantport {

enum class DifferenceKind : uint8_t {
  kStoredPlain,      // a config's scheme covers a matrix that is stored unquantized
  kExcluded,         // a quantized module that an exclude entry covers
  kNotClaimed,       // a quantized module that nothing in the config names
  kFormat,           // quantized in another format
  kGroupSize,        // with another number of values to a scale
  kBits,             // with integers of another width
  kTile,             // with a grid of scales that the stated tile does not give
  kConfigsDisagree,  // two config files say different things
  kOtherNamespace,   // an exclude list of which no entry matches any module
};

struct Difference {
  DifferenceKind kind = DifferenceKind::kFormat;
  std::string file;    // the config file that is contradicted
  std::string tensor;  // or the module, or the entry
  std::string message;
};

struct ClaimComparison {
  std::vector<Difference> differences;
  std::map<std::string, std::vector<std::string>> dead_entries;  // file -> those of its exclude list without a module
};

// A matrix is a weight of two or more dimensions that is no embedding, norm or position table; whether convolutions
// count is the dialect's.
// `tied`: names of weights that need not be stored, since they are another module's; engines build their modules all
// the same, and exclude lists name them. Errors: kInvalidConfig naming an entry that takes too long, kCancelled.
Result<ClaimComparison> CompareClaims(const ConfigFiles& configs, const std::vector<WeightUnit>& units,
                                      MatchBudget* budget, const std::set<std::string>& tied = {});

// Notes at weights what the config says otherwise of how their bytes are read, so that they are moved as they are only.
void NoteContradictions(const std::vector<Difference>& differences, std::vector<WeightUnit>* units);

// All of them, for who verifies.
Errors ProblemsOf(const std::vector<Difference>& differences);
// Those that decide how bytes are read, for who reads them; the rest is left to WarningsOf.
Errors ContradictionsOf(const std::vector<Difference>& differences);
// One warning for each kind and text; `interpreted`: of the kinds that are no contradictions.
std::vector<Warning> WarningsOf(const std::vector<Difference>& differences, bool interpreted = false);

// Entries of exclude lists that match no module of the checkpoint, a sentence for each file that has any.
std::vector<std::string> DeadEntryNotes(const ClaimComparison& comparison);

}  // namespace quantport
