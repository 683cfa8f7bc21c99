#include "plan/carry.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>
#include <unordered_set>

#include "base/text.h"
#include "layout/layouts.h"

namespace quantport {
namespace {

// What attention modules call the projections of keys and values. A KV scale may stand below one of them or beside it.
constexpr std::array<std::string_view, 5> kProjections = {"k_proj", "v_proj", "kv_proj", "kv_b_proj", "qkv_proj"};

// KV scales go with their projection; anything else has a key of its own.
bool IsWanted(const WeightUnit& unit, const std::unordered_set<std::string_view>& keys) {
  if (unit.role != UnitRole::kCacheScale) return keys.contains(unit.key);
  return keys.contains(unit.owner) ||
         std::any_of(kProjections.begin(), kProjections.end(), [&](std::string_view projection) {
           return keys.contains(fmt::format("{}.{}.weight", unit.module, projection));
         });
}

}  // namespace

Result<Carried> CarryTensors(const std::vector<std::string>& keys, const TensorTable& reference,
                             const std::filesystem::path& directory, bool sharded, TensorTable* table,
                             Conversion* conversion) {
  auto units = RecognizeUnits(reference, {});
  if (!units) return units.errors();
  const std::unordered_set<std::string_view> wanted(keys.begin(), keys.end());
  const auto first_shard = static_cast<uint32_t>(table->shards.size());
  for (Shard shard : reference.shards) {
    shard.name = std::filesystem::absolute(directory / shard.name).string();
    table->shards.push_back(std::move(shard));
  }
  std::set<std::string> modules;
  std::set<std::string> quantized;
  std::unordered_set<std::string> taken;
  for (const ConvertedTensor& tensor : conversion->tensors) taken.insert(tensor.name);
  for (const WeightUnit& unit : *units) {
    if (!IsWanted(unit, wanted)) continue;
    for (const uint32_t tensor : unit.tensors) {
      StoredTensor stored = reference.tensors[tensor];
      if (!taken.insert(stored.info.name).second) {
        return Error{ErrorKind::kNameCollision,
                     "the export has a tensor of this name, which its reference has for another", directory.string(),
                     stored.info.name, "leave --carry-missing out"};
      }
      stored.shard += first_shard;
      const auto index = static_cast<uint32_t>(table->tensors.size());
      conversion->tensors.push_back({stored.info.name, WholeTensor(index, stored.info.dtype, stored.info.shape),
                                     unit.weight.format, sharded ? stored.shard : 0});
      table->tensors.push_back(std::move(stored));
    }
    if (unit.role != UnitRole::kValue || !unit.key.ends_with(".weight")) continue;
    (unit.weight.format == FormatId::kPlain ? modules : quantized).insert(unit.module);
  }
  std::erase_if(conversion->only_in_reference, [&](const std::string& key) { return wanted.contains(key); });
  return Carried{{modules.begin(), modules.end()}, {quantized.begin(), quantized.end()}};
}

}  // namespace quantport
