// Where a module goes that no tensor speaks of, by what stands beside it.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "layout/recognize.h"
#include "plan/group_builder.h"

namespace quantport {

// Of the keys that a projection became, the one that a scale is named after: k_scale goes to k_proj.
std::optional<std::string> ClosestProduct(const std::vector<std::string>& keys, const std::string& leaf);

// Scales of the KV cache may be named after a projection that a model does not have, such as the k_proj of a latent
// attention, and that a rule for other modules speaks of. Their attention went where its linears went.
class Siblings {
 public:
  // Both outlive it.
  Siblings(const std::vector<WeightUnit>& units, const Grouping& grouping);

  // The key that "<module>.weight" becomes; `produced`: the keys that each group became. Nothing: no linear that is
  // only renamed stands below the module or beside it.
  std::optional<std::string> KeyOf(std::string_view module,
                                   const std::vector<std::vector<std::string>>& produced) const;

 private:
  const std::vector<WeightUnit>& units_;
  const Grouping& grouping_;
  std::unordered_map<std::string_view, size_t> below_;  // module -> a unit of a linear right below it
};

}  // namespace quantport
