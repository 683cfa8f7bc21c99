#include "mapping/model.h"

#include <fmt/format.h>

#include <algorithm>

#include "mapping/version.h"

namespace quantport {
namespace {

Result<ModelMapping> Resolve(const Registry& registry, std::string_view config_text, std::string_view config_file,
                             const std::optional<std::string>& architecture, std::string reason) {
  auto resolved = ResolveModel(registry, config_text, config_file, {architecture});
  if (!resolved) return resolved.errors();
  ModelMapping model{std::move(*resolved), {}, registry.version(), std::move(reason), registry.pattern_rules()};
  if (const auto* legacy = registry.FindConversions("legacy")) model.legacy = *legacy;
  return model;
}

bool IsUnknownModel(const Errors& errors) {
  return std::all_of(errors.begin(), errors.end(),
                     [](const Error& error) { return error.kind == ErrorKind::kUnknownArchitecture; });
}

// Whether some version that is built in knows the class, be it another one than applies.
Result<bool> AnyVersionKnows(std::string_view config_text, std::string_view config_file) {
  for (const BuiltInMapping& mapping : BuiltInMappings()) {
    const auto registry = Registry::BuiltIn(mapping);
    if (!registry) return registry.errors();
    auto knows = KnowsClass(**registry, config_text, config_file);
    if (!knows || *knows) return knows;
  }
  return false;
}

// What can be said of a model whose class the mapping at hand does not know: nothing, where its code is the
// checkpoint's own or no version knows it. Otherwise the errors.
Result<ModelMapping> WithoutMapping(Errors errors, bool built_in, std::string_view config_text,
                                    std::string_view config_file, std::string version, std::string reason) {
  const bool own_code = HasOwnCode(config_text);
  if (!own_code) {
    if (!built_in) return errors;
    auto known = AnyVersionKnows(config_text, config_file);
    if (!known) return known.errors();
    if (*known) return errors;
  }
  auto resolved = UnmappedModel(config_text, config_file, errors.front().hint);
  if (!resolved) return resolved.errors();
  return ModelMapping{std::move(*resolved), {}, std::move(version), std::move(reason)};
}

}  // namespace

Result<ModelMapping> ResolveMapping(std::string_view config_text, std::string_view config_file,
                                    std::string_view mapping_text, std::string_view mapping_file,
                                    const std::optional<std::string>& architecture,
                                    const std::optional<std::string>& transformers_version) {
  if (!mapping_file.empty()) {
    const auto registry = Registry::Parse(mapping_text, mapping_file);
    if (!registry) return registry.errors();
    std::string reason = fmt::format("from {}", mapping_file);
    auto model = Resolve(*registry, config_text, config_file, architecture, reason);
    if (model || architecture || !IsUnknownModel(model.errors())) return model;
    return WithoutMapping(std::move(model.errors()), false, config_text, config_file, registry->version(),
                          std::move(reason));
  }
  const auto choice = ChooseVersion(BuiltInMappings(), transformers_version, config_text);
  if (!choice) return choice.errors();
  std::string reason = choice->reason;
  Errors errors;
  std::string version;
  for (const BuiltInMapping& candidate : choice->candidates) {
    if (!errors.empty()) reason = fmt::format("{}; {} does not know this model", choice->reason, version);
    const auto registry = Registry::BuiltIn(candidate);
    if (!registry) return registry.errors();
    auto model = Resolve(**registry, config_text, config_file, architecture, reason);
    if (model || !IsUnknownModel(model.errors())) return model;
    errors = std::move(model.errors());
    version = candidate.version;
  }
  if (architecture) return errors;
  return WithoutMapping(std::move(errors), true, config_text, config_file, fmt::format("transformers {}", version),
                        std::move(reason));
}

}  // namespace quantport
