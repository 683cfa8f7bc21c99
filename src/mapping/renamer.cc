#include "mapping/renamer.h"

#include <algorithm>
#include <charconv>

#include "base/text.h"

namespace quantport {
namespace {

std::optional<uint64_t> ParseNumber(std::string_view text) {
  uint64_t number = 0;
  const bool fits = std::from_chars(text.data(), text.data() + text.size(), number).ec == std::errc();
  return fits && IsDigits(text) ? std::optional(number) : std::nullopt;
}

}  // namespace

Result<Renamer> Renamer::Create(std::span<const Transform> transforms, Direction direction) {
  Renamer renamer;
  renamer.direction_ = direction;
  Errors errors;
  for (size_t i = 0; i < transforms.size(); ++i) {
    const bool save = direction == Direction::kSave;
    const auto origin = static_cast<uint32_t>(save ? transforms.size() - 1 - i : i);
    auto compiled = CompiledTransform::Compile(save ? ReverseTransform(transforms[origin]) : transforms[origin]);
    if (!compiled) {
      errors.insert(errors.end(), compiled.errors().begin(), compiled.errors().end());
      continue;
    }
    const bool is_converter = transforms[origin].kind == TransformKind::kWeightConverter;
    (is_converter ? renamer.converters_ : renamer.renamings_).push_back({std::move(*compiled), origin});
  }
  if (!errors.empty()) return errors;
  renamer.active_.assign(renamer.renamings_.size(), false);
  return renamer;
}

RenamedKey Renamer::Rename(std::string_view key) { return Apply(key, &active_, {}); }

RenamedKey Renamer::Probe(std::string_view key, std::span<const uint32_t> skip) const {
  std::vector<bool> active = active_;
  return Apply(key, &active, skip);
}

std::vector<RenameStep> Renamer::Trace(std::string_view key) const {
  std::vector<bool> active = active_;
  Steps steps;
  Apply(key, &active, {}, &steps);
  return steps;
}

RenamedKey Renamer::Apply(std::string_view key, std::vector<bool>* active, std::span<const uint32_t> skip,
                          Steps* steps) const {
  RenamedKey renamed;
  renamed.name = key;
  if (direction_ == Direction::kSave) ApplyConverters(&renamed, skip, steps);
  ApplyRenamings(&renamed, active, skip, steps);
  if (direction_ == Direction::kLoad) ApplyConverters(&renamed, skip, steps);
  return renamed;
}

RenameStep Renamer::Step(const Entry& entry, const CompiledTransform::Match& match, const std::string& before) {
  const auto& sources = entry.compiled.sources();
  return {entry.origin, match.source < sources.size() ? sources[match.source] : std::string(), before, match.renamed};
}

void Renamer::ApplyRenamings(RenamedKey* key, std::vector<bool>* active, std::span<const uint32_t> skip,
                             Steps* steps) const {
  for (size_t i = 0; i < renamings_.size(); ++i) {
    if (std::find(skip.begin(), skip.end(), renamings_[i].origin) != skip.end()) continue;
    bool group_active = (*active)[i];
    auto match = renamings_[i].compiled.Rename(key->name, &group_active, &limit_exceeded_);
    (*active)[i] = group_active;
    if (!match) continue;
    if (steps != nullptr) steps->push_back(Step(renamings_[i], *match, key->name));
    key->name = std::move(match->renamed);
    key->fired.push_back(renamings_[i].origin);
  }
}

void Renamer::ApplyConverters(RenamedKey* key, std::span<const uint32_t> skip, Steps* steps) const {
  bool unused = false;
  for (size_t i = 0; i < converters_.size(); ++i) {
    if (std::find(skip.begin(), skip.end(), converters_[i].origin) != skip.end()) continue;
    auto match = converters_[i].compiled.Rename(key->name, &unused, &limit_exceeded_);
    if (!match) continue;
    if (steps != nullptr) steps->push_back(Step(converters_[i], *match, key->name));
    key->name = std::move(match->renamed);
    key->converter = static_cast<int>(i);
    key->source = match->source;
    key->number = ParseNumber(match->starred.value_or(""));
    key->fired.push_back(converters_[i].origin);
    return;
  }
}

}  // namespace quantport
