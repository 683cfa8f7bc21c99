#include "checkpoint/shards.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <set>

#include "base/text.h"

namespace quantport {
namespace {

constexpr std::string_view kExtension = ".safetensors";
constexpr std::string_view kRepairHint = "pass --repair-index to rebuild the index from the headers";

// "-00001-of-00003" at the end of a stem: {1, 3}.
struct Numbering {
  std::string_view family;
  uint32_t total = 0;
};

std::optional<Numbering> ParseNumbering(std::string_view stem) {
  const size_t of = stem.rfind("-of-");
  if (of == std::string_view::npos || !IsDigits(stem.substr(of + 4))) return std::nullopt;
  const size_t dash = stem.substr(0, of).rfind('-');
  if (dash == std::string_view::npos || !IsDigits(stem.substr(dash + 1, of - dash - 1))) return std::nullopt;
  Numbering numbering{stem.substr(0, dash), 0};
  const std::string_view total = stem.substr(of + 4);
  if (std::from_chars(total.data(), total.data() + total.size(), numbering.total).ec != std::errc())
    return std::nullopt;
  return numbering;
}

std::string_view Stem(std::string_view file) {
  return file.substr(0, file.size() - std::min(file.size(), kExtension.size()));
}

ShardList FromIndex(const std::vector<std::string>& files, const Index& index, const std::filesystem::path& folder) {
  std::set<std::string> listed;
  for (const auto& [tensor, shard] : index.weight_map) listed.insert(shard);
  std::set<std::string_view> families;
  for (const std::string& shard : listed) families.insert(ShardFamily(shard));
  ShardList list;
  for (const std::string& shard : listed) {
    if (std::find(files.begin(), files.end(), shard) != files.end()) list.shards.push_back(shard);
  }
  list.errors = FindMissingShards(files, index, folder);
  for (const std::string& file : files) {
    if (listed.contains(file)) continue;
    if (families.contains(ShardFamily(file))) {
      list.errors.push_back({ErrorKind::kInvalidIndex,
                             "a shard that the index does not name",
                             (folder / file).string(),
                             {},
                             std::string(kRepairHint)});
    } else {
      list.left_out.push_back(file);
    }
  }
  return list;
}

// Without an index a lost shard shows only in the others' "-of-N".
Errors CheckNumbering(const std::vector<std::string>& shards, const std::filesystem::path& folder) {
  std::map<uint32_t, uint32_t> found;
  for (const std::string& shard : shards) {
    if (const auto numbering = ParseNumbering(Stem(shard))) ++found[numbering->total];
  }
  Errors errors;
  for (const auto& [total, count] : found) {
    if (count == total) continue;
    errors.push_back({ErrorKind::kInvalidIndex,
                      fmt::format("the folder has no index, and {} of {} shards", count, total),
                      folder.string(),
                      {},
                      "download the missing shards, or pass --repair-index to take what is there"});
  }
  return errors;
}

Result<ShardList> FromNames(const std::vector<std::string>& files, bool repair_index,
                            const std::filesystem::path& folder) {
  std::set<std::string_view> families;
  for (const std::string& file : files) families.insert(ShardFamily(file));
  if (!families.contains("model") && families.size() > 1) {
    return Error{
        ErrorKind::kInvalidIndex,
        fmt::format("the folder has no index, and safetensors files of several namings: {}", fmt::join(families, ", ")),
        folder.string(),
        {},
        "keep one of them, or add an index"};
  }
  const std::string_view family = families.contains("model") ? std::string_view("model") : *families.begin();
  ShardList list;
  for (const std::string& file : files) (ShardFamily(file) == family ? list.shards : list.left_out).push_back(file);
  if (!repair_index) list.errors = CheckNumbering(list.shards, folder);
  return list;
}

}  // namespace

std::string_view ShardFamily(std::string_view file_name) {
  const std::string_view stem = Stem(file_name);
  const auto numbering = ParseNumbering(stem);
  return numbering ? numbering->family : stem;
}

bool IsNumberedShard(std::string_view file_name) { return ParseNumbering(Stem(file_name)).has_value(); }

Result<ShardList> ChooseShards(const std::vector<std::string>& files, const std::optional<Index>& index,
                               bool repair_index, const std::filesystem::path& folder) {
  if (files.empty()) {
    return Error{ErrorKind::kIo,
                 "no safetensors file in this folder",
                 folder.string(),
                 {},
                 "is it a checkpoint in another format?"};
  }
  if (index && !repair_index) return FromIndex(files, *index, folder);
  return FromNames(files, repair_index, folder);
}

Errors FindMissingShards(const std::vector<std::string>& files, const Index& index,
                         const std::filesystem::path& folder) {
  std::set<std::string> missing;
  for (const auto& [tensor, shard] : index.weight_map) missing.insert(shard);
  for (const std::string& file : files) missing.erase(file);
  Errors errors;
  for (const std::string& shard : missing) {
    errors.push_back({ErrorKind::kInvalidIndex,
                      "the index names this shard, but it is missing",
                      (folder / shard).string(),
                      {},
                      "download the missing shard"});
  }
  return errors;
}

}  // namespace quantport
