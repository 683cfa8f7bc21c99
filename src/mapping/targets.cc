#include "mapping/targets.h"

#include "base/text.h"

namespace quantport {

std::string TargetTemplate::Name(std::string_view target, std::optional<uint64_t> index) const {
  return prefix + (index ? ReplaceAll(target, "*", std::to_string(*index)) : std::string(target)) + suffix;
}

std::optional<TargetTemplate> FindTarget(std::string_view renamed, const std::vector<std::string>& targets) {
  const std::string full = ReplaceAll(renamed, "*.", "0.");
  for (const std::string& target : targets) {
    const std::string text = ReplaceAll(target, "*", "0");
    const size_t hit = full.find(text);
    if (hit == std::string::npos) continue;
    return TargetTemplate{full.substr(0, hit), full.substr(hit + text.size())};
  }
  return std::nullopt;
}

std::vector<std::string> ExpandTargets(const std::string& renamed, const std::vector<std::string>& targets) {
  const auto found = targets.size() > 1 ? FindTarget(renamed, targets) : std::nullopt;
  if (!found) return {renamed};
  std::vector<std::string> names;
  for (const std::string& target : targets) names.push_back(found->Name(target, std::nullopt));
  return names;
}

}  // namespace quantport
