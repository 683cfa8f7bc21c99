// Which files of a folder are the checkpoint's shards, by name and index.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quantport/error.h"
#include "safetensors/index.h"

namespace quantport {

struct ShardList {
  std::vector<std::string> shards;    // sorted
  std::vector<std::string> left_out;  // safetensors files of another naming, for example consolidated.safetensors
  Errors errors;                      // kInvalidIndex: missing and unlisted shards; the rest can still be read
};

// "model-00001-of-00003.safetensors" -> "model": files of one family make up one checkpoint.
std::string_view ShardFamily(std::string_view file_name);

// True for a file that is one of several by its name, "-00001-of-00003".
bool IsNumberedShard(std::string_view file_name);

// Chooses among the safetensors files of `folder` (their plain names in `files`). With an index, its shards; without
// one, the family "model", or the only family there is.
// Errors: kInvalidIndex where the files of several namings leave no choice; kIo where there is no safetensors file.
Result<ShardList> ChooseShards(const std::vector<std::string>& files, const std::optional<Index>& index,
                               bool repair_index, const std::filesystem::path& folder);

// Errors for the shards that the index names and the folder does not have.
Errors FindMissingShards(const std::vector<std::string>& files, const Index& index,
                         const std::filesystem::path& folder);

}  // namespace quantport
