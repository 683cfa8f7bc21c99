// Which transformers version's mapping a checkpoint gets.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "mapping/builtin_data.h"
#include "quantport/error.h"

namespace quantport {

// Major, minor, patch.
using Release = std::array<uint32_t, 3>;

// The release that a version is, or is on the way to: "5.18.0.dev0" is 5.18.0, as a development version is nearer to
// the release it becomes than to the one before. Nothing for what does not begin with a number.
std::optional<Release> ParseRelease(std::string_view version);

struct VersionChoice {
  // The first is chosen. The later ones are newer, and may be asked for a class that those before do not know.
  std::span<const BuiltInMapping> candidates;
  std::string reason;  // "config.json states 5.17.0"
};

// `asked` names a built-in version. Without it config.json's transformers_version decides: an export has the names that
// the transformers which saved it has in memory, so it is the newest built-in version not newer than that one. Where
// none is, or config.json states no version, it is the oldest.
// Errors: kUnknownVersion for an `asked` that is not built in.
Result<VersionChoice> ChooseVersion(std::span<const BuiltInMapping> built_in, const std::optional<std::string>& asked,
                                    std::string_view config_text);

}  // namespace quantport
