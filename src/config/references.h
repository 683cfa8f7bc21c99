// Module references of config files: rewritten by meaning from in-memory to hub names.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "config/module_set.h"
#include "quantport/error.h"

namespace quantport {

class ReferenceRewriter {
 public:
  // `modules`: in-memory module -> the hub modules it became. `rename`: the hub name of a module the export does not
  // hold (a partial checkpoint's other layers), by the same mapping.
  ReferenceRewriter(const std::map<std::string, std::vector<std::string>>& modules,
                    std::function<std::string(const std::string&)> rename);

  // The entries that match among the hub modules exactly what `entry` matches among the in-memory ones.
  std::vector<std::string> Rewrite(const std::string& entry) const;

 private:
  std::vector<uint32_t> HubOf(const std::vector<uint32_t>& in_memory) const;
  using Entries = std::vector<std::string>;

  // Entries that may mean the same on the hub, the likeliest first.
  std::vector<Entries> Candidates(const std::string& entry) const;
  Entries RenamePath(const std::string& path) const;
  std::vector<uint32_t> HubMatches(const Entries& entries) const;

  ModuleSet in_memory_;
  ModuleSet hub_;
  std::vector<std::vector<uint32_t>> to_hub_;  // for each in-memory module
  std::function<std::string(const std::string&)> rename_;
};

// Rewrites every list of module references in a config.json or hf_quant_config.json text. The order of keys stays.
// Returns the new text, or `text` itself where it holds no references. Errors: kInvalidConfig naming `file`.
Result<std::string> RewriteReferences(const std::string& text, std::string_view file,
                                      const ReferenceRewriter& rewriter);

}  // namespace quantport
