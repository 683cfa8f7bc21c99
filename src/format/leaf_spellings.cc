#include "format/leaf_spellings.h"

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "base/json.h"
#include "format/builtin_quantizers.h"
#include "format/leaves.h"

namespace quantport {
namespace {

void Add(LeafSpelling spelling, std::vector<LeafSpelling>* all) {
  const bool known = std::any_of(all->begin(), all->end(), [&](const LeafSpelling& other) {
    return other.name == spelling.name && other.leaf == spelling.leaf;
  });
  if (!known) all->push_back(std::move(spelling));
}

// Of the two names of a rename, one is the format's. That is memory's for what a producer spells in a way of its own,
// and the checkpoint's where a model keeps the tensor in an object below the module (AMD Quark's quantizers).
std::vector<LeafSpelling> Read() {
  std::vector<LeafSpelling> all;
  for (const std::string_view text : BuiltInQuantizers()) {
    const auto json = ParseJson(text, "data/quantizers", ErrorKind::kInvalidMapping);
    if (!json) throw std::logic_error(json.errors().front().message);
    for (const auto& [method, quantizer] : json->at("quantizers").items()) {
      for (const Json& rename : quantizer.at("renames")) {
        std::string stored = rename.at("stored").get<std::string>();
        std::string loaded = rename.at("loaded").get<std::string>();
        const bool below = loaded.find('.') != std::string::npos;
        Add(below ? LeafSpelling{std::move(loaded), std::move(stored), true}
                  : LeafSpelling{std::move(stored), std::move(loaded), false},
            &all);
      }
    }
  }
  // Mistral's checkpoints have it beside qscale_weight. transformers ignores it, vLLM reads it as the activations'
  // scale (its mistral_mapping).
  Add({"qscale_act", std::string(leaf::kActivationScale), false}, &all);
  return all;
}

}  // namespace

std::span<const LeafSpelling> LeafSpellings() {
  static const std::vector<LeafSpelling> kSpellings = Read();
  return kSpellings;
}

}  // namespace quantport
