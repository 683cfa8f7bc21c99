// Reference-guided reversal: runs the load direction on the hub checkpoint's own names and inverts the relation, so
// that every in-memory name maps back to exactly the hub names it came from.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "mapping/transform.h"
#include "quantport/error.h"

namespace quantport {

// Hub tensors that one application of a transform turned into in-memory ones.
struct Origin {
  const Transform* converter = nullptr;       // as loaded (not reversed); null for a plain rename
  std::vector<std::string> in_memory;         // one name for each target pattern
  std::vector<std::vector<std::string>> hub;  // for each source pattern, its names in load order
};

class Inverse {
 public:
  struct Input {
    std::span<const Transform> transforms;  // of the model, in load order
    std::span<const Transform> legacy;      // applied after them at load, never reversed by rule
    std::string_view base_model_prefix;
    const std::vector<std::string>* hub_keys;               // values of the reference, without companions
    const std::unordered_set<std::string>* in_memory_keys;  // names the model has, as far as the export shows
  };
  static Result<Inverse> Build(const Input& input);

  struct Hit {
    const Origin* origin;
    size_t position;  // among origin->in_memory
  };
  std::optional<Hit> Find(const std::string& in_memory_key) const;

  // Transforms that matched some hub name, in load order, without legacy ones: what a reversal by rule may use.
  const std::vector<Transform>& used() const { return used_; }
  const std::vector<uint32_t>& used_indices() const { return used_indices_; }

 private:
  std::vector<Origin> origins_;
  std::unordered_map<std::string, std::pair<size_t, size_t>> by_name_;
  std::vector<Transform> used_;
  std::vector<uint32_t> used_indices_;
};

}  // namespace quantport
