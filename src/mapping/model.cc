#include "mapping/model.h"

namespace quantport {

Result<ModelMapping> ResolveMapping(std::string_view config_text, std::string_view config_file,
                                    std::string_view mapping_text, std::string_view mapping_file,
                                    const std::optional<std::string>& architecture) {
  auto registry = mapping_file.empty() ? Registry::BuiltIn() : Registry::Parse(mapping_text, mapping_file);
  if (!registry) return registry.errors();
  auto resolved = ResolveModel(*registry, config_text, config_file, {architecture});
  if (!resolved) return resolved.errors();
  ModelMapping model{std::move(*resolved), {}};
  if (const auto* legacy = registry->FindConversions("legacy")) model.legacy = *legacy;
  return model;
}

}  // namespace quantport
