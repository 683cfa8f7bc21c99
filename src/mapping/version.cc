#include "mapping/version.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <vector>

#include "base/json.h"
#include "base/text.h"

namespace quantport {
namespace {

std::string Names(std::span<const BuiltInMapping> mappings) {
  std::vector<std::string_view> names;
  for (const BuiltInMapping& mapping : mappings) names.push_back(mapping.version);
  return fmt::format("{}", fmt::join(names, ", "));
}

std::optional<std::string> StatedVersion(std::string_view config_text) {
  // A config that is no JSON is reported by who reads it for its model.
  const auto config = ParseJson(config_text, "config.json", ErrorKind::kInvalidConfig);
  if (!config || !config->is_object()) return std::nullopt;
  const auto it = config->find("transformers_version");
  if (it == config->end() || !it->is_string()) return std::nullopt;
  return it->get<std::string>();
}

}  // namespace

std::optional<Release> ParseRelease(std::string_view version) {
  Release release = {};
  size_t count = 0;
  for (const std::string_view part : SplitDots(version)) {
    if (count == release.size()) break;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), release[count]);
    if (error == std::errc::result_out_of_range) return std::nullopt;
    if (error != std::errc()) break;
    ++count;
    if (end != part.data() + part.size()) break;  // "0rc1": what follows the number is a suffix
  }
  if (count == 0) return std::nullopt;
  return release;
}

Result<VersionChoice> ChooseVersion(std::span<const BuiltInMapping> built_in, const std::optional<std::string>& asked,
                                    std::string_view config_text) {
  if (asked) {
    const auto it = std::find_if(built_in.begin(), built_in.end(),
                                 [&](const BuiltInMapping& mapping) { return mapping.version == *asked; });
    if (it == built_in.end()) {
      return Error{ErrorKind::kUnknownVersion,
                   fmt::format("the mapping of transformers {} is not built in", *asked),
                   {},
                   {},
                   fmt::format("built in are {}; --mapping FILE takes that of another version", Names(built_in))};
    }
    return VersionChoice{built_in.subspan(static_cast<size_t>(it - built_in.begin()), 1), "as asked for"};
  }
  const std::optional<std::string> stated = StatedVersion(config_text);
  const std::optional<Release> release = stated ? ParseRelease(*stated) : std::nullopt;
  if (!release) {
    // A later version may have renamed what an earlier one saved; the choice here stays as more are built in.
    return VersionChoice{built_in, stated ? fmt::format("config.json states \"{}\", which is no version", *stated)
                                          : std::string("config.json states no version")};
  }
  const auto newer = std::find_if(built_in.begin(), built_in.end(), [&](const BuiltInMapping& mapping) {
    return *ParseRelease(mapping.version) > *release;
  });
  const size_t chosen = newer == built_in.begin() ? 0 : static_cast<size_t>(newer - built_in.begin()) - 1;
  const std::string_view relation = *ParseRelease(built_in[chosen].version) == *release ? ""
                                    : newer == built_in.begin()                         ? ", older than any built in"
                                    : newer == built_in.end()                           ? ", newer than any built in"
                                                                                        : ", between those built in";
  // A class that came between two versions is known to the newer one only.
  const size_t candidates = relation.empty() ? 1 : built_in.size() - chosen;
  return VersionChoice{built_in.subspan(chosen, candidates), fmt::format("config.json states {}{}", *stated, relation)};
}

}  // namespace quantport
