#include "mapping/model.h"

#include <fmt/format.h>

#include <algorithm>

#include "mapping/version.h"

namespace quantport {
namespace {

Result<ModelMapping> Resolve(const Result<Registry>& registry, std::string_view config_text,
                             std::string_view config_file, const std::optional<std::string>& architecture,
                             std::string reason) {
  if (!registry) return registry.errors();
  auto resolved = ResolveModel(*registry, config_text, config_file, {architecture});
  if (!resolved) return resolved.errors();
  ModelMapping model{std::move(*resolved), {}, registry->version(), std::move(reason), registry->pattern_rules()};
  if (const auto* legacy = registry->FindConversions("legacy")) model.legacy = *legacy;
  return model;
}

bool IsUnknownModel(const Errors& errors) {
  return std::all_of(errors.begin(), errors.end(),
                     [](const Error& error) { return error.kind == ErrorKind::kUnknownArchitecture; });
}

}  // namespace

Result<ModelMapping> ResolveMapping(std::string_view config_text, std::string_view config_file,
                                    std::string_view mapping_text, std::string_view mapping_file,
                                    const std::optional<std::string>& architecture,
                                    const std::optional<std::string>& transformers_version) {
  if (!mapping_file.empty()) {
    return Resolve(Registry::Parse(mapping_text, mapping_file), config_text, config_file, architecture,
                   fmt::format("from {}", mapping_file));
  }
  const auto choice = ChooseVersion(BuiltInMappings(), transformers_version, config_text);
  if (!choice) return choice.errors();
  std::string reason = choice->reason;
  for (const BuiltInMapping& candidate : choice->candidates) {
    auto model = Resolve(Registry::BuiltIn(candidate), config_text, config_file, architecture, reason);
    const bool last = &candidate == &choice->candidates.back();
    if (last || model || !IsUnknownModel(model.errors())) return model;
    reason = fmt::format("{}; {} does not know this model", choice->reason, candidate.version);
  }
  return choice.errors();  // not reached: there is always a candidate
}

}  // namespace quantport
