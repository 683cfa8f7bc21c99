// Draft layers, also called multi-token-prediction (MTP) layers: what a model publishes to guess the tokens behind the
// next one. transformers does not load them, so quantizers leave them as they are.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "mapping/resolve.h"

namespace quantport {

class DraftLayers {
 public:
  explicit DraftLayers(const ResolvedModel& model) : layers_(model.num_hidden_layers) {}
  // By the text of a config.json; one that can't be read states no number of layers.
  explicit DraftLayers(std::string_view config_text);

  // The path of the draft layers that a tensor or module belongs to: "mtp", "model.layers.61". Empty: to none.
  std::string_view PathOf(std::string_view name) const;

 private:
  std::optional<uint64_t> layers_;  // of the text model
};

}  // namespace quantport
