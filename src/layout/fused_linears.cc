#include "layout/fused_linears.h"

#include <algorithm>

#include "base/embedded.h"
#include "base/json.h"
#include "base/text.h"

QUANTPORT_EMBED(quantport_fused_linears, QUANTPORT_FUSED_LINEARS)

namespace quantport {
namespace {

// The file is the project's own, and a unit test reads it.
std::vector<FusedLinear> ReadTable() {
  std::vector<FusedLinear> all;
  const auto json = ParseJson(QUANTPORT_EMBEDDED(quantport_fused_linears), "", ErrorKind::kInvalidConfig);
  if (!json) return all;
  for (const Json& entry : json->at("fused")) {
    all.push_back({entry.at("name").get<std::string>(), entry.at("parts").get<std::vector<std::string>>(),
                   entry.at("engines").get<std::vector<std::string>>()});
  }
  return all;
}

}  // namespace

std::span<const FusedLinear> FusedLinears() {
  static const std::vector<FusedLinear> kTable = ReadTable();
  return kTable;
}

const FusedLinear* FindFusedLinear(std::string_view module) {
  const auto [parent, leaf] = SplitLeaf(module);
  // Keys and values of a cross attention come from elsewhere than its queries, which stay by themselves.
  const bool cross = parent.find("cross") != std::string_view::npos || parent.ends_with("encoder_attn");
  if (cross && leaf.starts_with('q')) return nullptr;
  for (const FusedLinear& fused : FusedLinears()) {
    if (std::find(fused.parts.begin(), fused.parts.end(), leaf) != fused.parts.end()) return &fused;
  }
  return nullptr;
}

}  // namespace quantport
