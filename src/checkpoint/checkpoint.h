// A checkpoint folder as one table of tensors, read from its headers and index alone.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quantport/error.h"
#include "safetensors/header.h"
#include "safetensors/index.h"
#include "safetensors/table.h"

namespace quantport {

struct Checkpoint {
  std::filesystem::path directory;
  TensorTable table;
  bool sharded = false;               // several shards, with an index on output
  std::optional<Index> index;         // as read; absent where the folder has none or it is being repaired
  std::vector<std::string> sidecars;  // other files to keep, relative paths, sorted
  std::vector<std::string> notes;     // what a person should know: files left out, a missing index
};

struct OpenOptions {
  bool repair_index = false;   // trust the headers, drop the index that contradicts them
  bool being_changed = false;  // by the caller, in place: its journal is no obstacle
};

// Reads every header of the checkpoint in `directory`.
// Errors: kIo, kInvalidHeader, kInvalidIndex (ghost keys, unlisted tensors or shards, missing shards); all are
// listed, and none is repaired unless asked for. kLocked and kUnfinishedChange where the folder is being changed in
// place, or was when that was interrupted.
Result<Checkpoint> OpenCheckpoint(const std::filesystem::path& directory, const OpenOptions& options = {});

// Names alone, from an index file or a folder's index or headers: what a reference needs at least.
struct ReferenceNames {
  std::vector<std::string> names;
  std::optional<TensorTable> table;  // absent where only an index was given
};
Result<ReferenceNames> OpenReference(const std::filesystem::path& path);

// Reads the header of one file.
Result<Header> ReadHeader(const std::filesystem::path& path);

}  // namespace quantport
