#include "plan/draft_layers.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "dialect/claims.h"
#include "mapping/config_values.h"

namespace quantport {
namespace {

bool IsDraftPart(std::string_view part) {
  return part == "mtp" || part == "nextn" || part == "nextn_predict_layers" || part.starts_with("mtp_");
}

// The parts' halves of models that read with one and write with the other: their config counts the encoder's layers.
bool IsHalf(std::string_view part) { return part == "encoder" || part == "decoder"; }

}  // namespace

DraftLayers::DraftLayers(std::string_view config_text) {
  const auto config = ParseJson(config_text, {}, ErrorKind::kInvalidConfig);
  if (config && config->is_object()) layers_ = HiddenLayers(*config);
}

std::string_view DraftLayers::PathOf(std::string_view name) const {
  std::string_view before;
  for (size_t begin = 0; begin < name.size();) {
    const size_t end = std::min(name.find('.', begin), name.size());
    const std::string_view part = name.substr(begin, end - begin);
    if (IsDraftPart(part)) return name.substr(0, end);
    uint64_t layer = 0;
    const auto [rest, code] = std::from_chars(part.data(), part.data() + part.size(), layer);
    const bool number = code == std::errc() && rest == part.data() + part.size();
    // DeepSeek-V3 and its kin store them behind the last layer. A tower for images may have more layers than the text
    // model, and no draft layers.
    if (before == "layers" && number && layers_ && layer >= *layers_) {
      const std::string_view list = name.substr(0, begin - 1);
      const std::string_view parent = list.substr(0, list.size() - std::min(list.size(), before.size() + 1));
      const bool text = !IsHalf(parent.substr(parent.rfind('.') + 1)) && !IsUsuallyLeftAlone(parent);
      return text ? name.substr(0, end) : std::string_view();
    }
    before = part;
    begin = end + 1;
  }
  return {};
}

}  // namespace quantport
