// Names of modules that need not be in the export, for config references.
#pragma once

#include <optional>
#include <string>

#include "mapping/inverse.h"
#include "plan/groups.h"

namespace quantport {

// Names by reference where it knows them and by rule elsewhere.
struct NameLookup {
  Renamer all;  // of every transform, for finding stacked parameters
  RuleNames rules;
  std::optional<Inverse> inverse;

  // The key that "<module>.weight" becomes.
  std::string NewKey(const std::string& module) const;
};

}  // namespace quantport
