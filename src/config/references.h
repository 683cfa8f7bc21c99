// Module references of config files: rewritten by meaning from in-memory to hub names.
#pragma once

#include <array>
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

// What a config says of one layer in mixed precision.
struct LayerScheme {
  std::string entry;           // which modules, as an exclude list would name them
  std::string algorithm = {};  // quant_algo, "" where unknown
  uint64_t group_size = 0;     // 0: unknown
};

// What the configs say of the quantization, as far as reading tensors needs it. Every list is empty where nothing is
// said; lists of sizes hold each value once.
struct QuantScheme {
  bool quantized = false;
  std::string method;                             // quant_method: "modelopt", "compressed-tensors", "gptq", ...
  std::string quant_algo;                         // for people: quant_algo, quant_method or format, "" where unknown
  std::vector<std::string> claims;                // what it calls the storage of weights: algorithm, formats, method
  std::vector<uint64_t> group_sizes;              // values that share a scale
  std::vector<uint64_t> bits;                     // of packed integers
  std::array<uint64_t, 2> fp8_tile = {128, 128};  // rows and columns
  bool states_tile = false;                       // it does, and 128 x 128 is not just what everyone uses
  bool ordered_groups = false;                    // desc_act is false
  bool zeros_less_one = false;                    // GPTQ before its second format
  bool overrides = false;                         // single modules may differ from all of that
  std::vector<std::string> excluded;              // entries of the exclude list
  std::vector<LayerScheme> quantized_layers;      // in mixed precision
  bool has_exclude_list = false;
};

// The scheme of a config.json (`quantization_config`, also below text_config) or hf_quant_config.json text.
Result<QuantScheme> ReadScheme(const std::string& text, std::string_view file);

}  // namespace quantport
