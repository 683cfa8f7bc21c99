// A checkpoint folder as one table of tensors, read from its headers and index alone.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/storage.h"
#include "quantport/error.h"
#include "safetensors/header.h"
#include "safetensors/index.h"
#include "safetensors/table.h"

namespace quantport {

struct Checkpoint {
  std::shared_ptr<const Folder> folder;
  TensorTable table;
  bool sharded = false;               // several shards, with an index on output
  std::optional<Index> index;         // as read; absent where the folder has none or it is being repaired
  std::vector<std::string> sidecars;  // other files to keep, relative paths, sorted
  std::vector<std::string> outside;   // of these, links that lead out of the folder and are not to be followed
  std::vector<std::string> left_out;  // safetensors files that are no shards of it: adapters, projectors, strays
  std::vector<std::string> notes;     // what a person should know: files left out, a missing index
};

struct OpenOptions {
  bool repair_index = false;  // trust the headers, drop the index that contradicts them
  // With it: shards that are missing, by the index or by their numbers, are errors all the same.
  bool whole = false;
  bool all_files = false;      // safetensors files that are no shards are kept, like other files
  bool being_changed = false;  // by the caller, in place: its journal is no obstacle
  bool follow_links = false;   // sidecars that are links out of the folder are files as any
};

// Reads every header of the checkpoint in the folder.
// Errors: kIo, kInvalidHeader, kInvalidIndex (ghost keys, unlisted tensors or shards, missing shards); all are
// listed, and none is repaired unless asked for. kLocked and kUnfinishedChange where the folder is being changed in
// place, or was when that was interrupted. kInvalidHeader where all headers together are beyond any checkpoint's.
Result<Checkpoint> OpenCheckpoint(std::shared_ptr<const Folder> folder, const OpenOptions& options = {});
Result<Checkpoint> OpenCheckpoint(const Storage& storage, const std::string& address, const OpenOptions& options = {});

// Names alone, from an index file or a folder's index or headers: what a reference needs at least.
struct ReferenceNames {
  std::vector<std::string> names;
  std::optional<TensorTable> table;  // absent where only an index was given
};
Result<ReferenceNames> OpenReference(const Storage& storage, const std::string& address);

// Reads the header of one file.
Result<Header> ReadHeader(const ByteSource& file);

}  // namespace quantport
