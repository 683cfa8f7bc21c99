// Module references of config files: rewritten by meaning from in-memory to hub names.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/name_patterns.h"
#include "dialect/entry.h"
#include "dialect/module_names.h"
#include "quantport/error.h"

namespace quantport {

class ReferenceRewriter {
 public:
  // `modules`: in-memory module -> the hub modules it became. `rename`: the hub name of a module the export does not
  // hold (a partial checkpoint's other layers), by the same mapping.
  ReferenceRewriter(const std::map<std::string, std::vector<std::string>>& modules,
                    std::function<std::string(const std::string&)> rename);

  using Entries = std::vector<std::string>;

  // The entries that match among the hub modules exactly what `entry` matches among the in-memory ones. An entry that
  // matches nothing is kept: what it names may be built by an engine, or stand in a list for many models. Errors:
  // kInvalidConfig naming an entry that takes too long, kCancelled.
  Result<Entries> Rewrite(const std::string& entry, EntrySyntax syntax, MatchBudget* budget);

 private:
  // What is tried for an entry, in this order.
  enum class Attempt : uint8_t { kRenamed, kByRule, kEndings, kAsItIs, kPatterns };
  struct Task;

  std::vector<uint32_t> HubOf(const std::vector<uint32_t>& in_memory) const;
  Result<Entries> RewriteDead(const Task& task);
  // Candidates that may mean the same on the hub.
  std::vector<Entries> Candidates(Attempt attempt, const Task& task);
  std::vector<Entries> Endings(const Task& task) const;
  std::vector<Entries> Patterns(const Task& task);
  Entries RenamePath(const Task& task) const;
  Entries ExactEntries(const Task& task) const;
  Result<std::vector<uint32_t>> HubMatches(const Entries& entries, const Task& task) const;

  ModuleNames in_memory_;
  ModuleNames hub_;
  std::vector<std::vector<uint32_t>> to_hub_;  // for each in-memory module
  std::function<std::string(const std::string&)> rename_;
  std::optional<AlikeNames> alike_;  // of the hub; made when first needed
};

// Rewrites every reference to modules in the text of a config file. The order of keys stays. Returns the new text, or
// `text` itself where it holds no references. Errors: kInvalidConfig naming `file`, kCancelled.
Result<std::string> RewriteReferences(const std::string& text, std::string_view file, ReferenceRewriter* rewriter,
                                      MatchBudget* budget);

}  // namespace quantport
