// Which format a module's tensors are: the one whose parts they are, each tensor one part and all of them.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "format/format.h"

namespace quantport {

// A tensor as the part that it is.
struct PartMatch {
  Role role = Role::kUnknown;
  Axes axes;
  std::function<std::vector<std::byte>(std::span<const uint64_t> shape)> restate = {};
};

// Why tensors are of no format.
struct Misfit {
  FormatId nearest = FormatId::kUnrecognized;  // that itself: none comes near
  std::string text;                            // "weight_scale is [64, 5], and NVFP4 of [64, 64] has [64, 4]"
};

struct Match {
  FormatId format = FormatId::kUnrecognized;
  Shape shape;  // logical; as stored where nothing matches
  Variant variant;
  std::vector<PartMatch> parts;  // one for each tensor
  Misfit misfit;                 // of kUnrecognized
};

// The parts of what was proposed before, for a caller that matches one module after the other: a model's weights are
// many and their shapes few.
class PartsMemo {
 public:
  // Valid until the next call.
  const std::vector<Part>& Of(const Proposal& proposal);

 private:
  struct Hash {
    size_t operator()(const Proposal& proposal) const;
  };
  // The misfit is for messages alone.
  struct SameParts {
    bool operator()(const Proposal& a, const Proposal& b) const;
  };
  std::unordered_map<Proposal, std::vector<Part>, Hash, SameParts> parts_;
};

Match MatchFormat(const StoredModule& module, PartsMemo* memo);

// What the stored tensors call for and don't have, for example "weight_scale_2 is missing".
std::optional<std::string> MissingPart(const StoredModule& module);

}  // namespace quantport
