#include "mapping/inverse.h"

#include <algorithm>
#include <set>

#include "base/text.h"
#include "mapping/renamer.h"
#include "mapping/targets.h"

namespace quantport {
namespace {

// Loading adds or strips one base-model prefix where only that gives a name the model has. transformers strips with
// the regular expression "^prefix.", whose dot takes any character. It does so even where the model has the name as
// it is, which swaps PixioBackbone's layernorm and pixio.layernorm at load; that defect is not inverted.
std::string FitBasePrefix(std::string name, std::string_view base, const std::unordered_set<std::string>& in_memory) {
  if (base.empty() || in_memory.contains(name)) return name;
  if (name.starts_with(base) && name.size() > base.size()) {
    std::string stripped = name.substr(base.size() + 1);
    if (in_memory.contains(stripped)) return stripped;
  }
  std::string prefixed = JoinName(base, name);
  return in_memory.contains(prefixed) ? prefixed : name;
}

}  // namespace

Result<Inverse> Inverse::Build(const Input& input) {
  std::vector<Transform> all(input.transforms.begin(), input.transforms.end());
  std::copy_if(input.legacy.begin(), input.legacy.end(), std::back_inserter(all),
               [](const Transform& transform) { return transform.kind != TransformKind::kWeightConverter; });
  auto renamer = Renamer::Create(all, Renamer::Direction::kLoad);
  if (!renamer) return renamer.errors();
  std::vector<std::string> keys = *input.hub_keys;
  std::sort(keys.begin(), keys.end(), DotNaturalLess);

  Inverse inverse;
  std::set<uint32_t> used;
  std::unordered_map<std::string, size_t> origin_of;  // first in-memory name -> origin
  for (const std::string& hub : keys) {
    RenamedKey renamed = renamer->Rename(hub);
    used.insert(renamed.fired.begin(), renamed.fired.end());
    std::string name = FitBasePrefix(renamed.name, input.base_model_prefix, *input.in_memory_keys);
    if (!input.in_memory_keys->contains(name) && input.in_memory_keys->contains(hub)) {
      // A name the model has already should not have been renamed: the checkpoint is in the new naming here.
      renamed.converter = -1;
      name = FitBasePrefix(hub, input.base_model_prefix, *input.in_memory_keys);
    }
    const CompiledTransform* converter = renamed.converter < 0 ? nullptr : &renamer->converter(renamed.converter);
    const auto [it, fresh] = origin_of.emplace(name, inverse.origins_.size());
    if (fresh) {
      Origin origin;
      origin.converter = converter == nullptr ? nullptr : &input.transforms[renamer->origin(renamed.converter)];
      origin.in_memory = converter == nullptr ? std::vector{name} : ExpandTargets(name, converter->targets());
      origin.hub.resize(converter == nullptr ? 1 : converter->sources().size());
      inverse.origins_.push_back(std::move(origin));
    }
    Origin& origin = inverse.origins_[it->second];
    // A second hub tensor for one parameter without a converter is never loaded; the first wins, as in transformers.
    if (!fresh && converter == nullptr) continue;
    if ((origin.converter == nullptr) != (converter == nullptr)) continue;
    origin.hub[converter == nullptr ? 0 : renamed.source].push_back(hub);
  }
  for (size_t i = 0; i < inverse.origins_.size(); ++i) {
    const Origin& origin = inverse.origins_[i];
    for (size_t p = 0; p < origin.in_memory.size(); ++p) inverse.by_name_.emplace(origin.in_memory[p], std::pair(i, p));
  }
  for (const uint32_t index : used) {
    if (index >= input.transforms.size()) continue;
    inverse.used_.push_back(input.transforms[index]);
    inverse.used_indices_.push_back(index);
  }
  return inverse;
}

std::optional<Inverse::Hit> Inverse::Find(const std::string& in_memory_key) const {
  const auto it = by_name_.find(in_memory_key);
  if (it == by_name_.end()) return std::nullopt;
  return Hit{&origins_[it->second.first], it->second.second};
}

}  // namespace quantport
