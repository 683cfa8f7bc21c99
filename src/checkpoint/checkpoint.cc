#include "checkpoint/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <system_error>
#include <unordered_map>
#include <unordered_set>

#include "checkpoint/shards.h"
#include "io/file.h"
#include "io/folder_lock.h"

namespace quantport {

namespace fs = std::filesystem;

namespace {

// An index of a few million tensors; a larger file is not one.
constexpr uint64_t kMaxIndexBytes = 1ull << 30;

Error CantList(const fs::path& directory, const std::error_code& code) {
  return Error{ErrorKind::kIo, fmt::format("can't list the folder: {}", code.message()), directory.string(), {}, {}};
}

// Every file below the folder, relative. Hidden folders, of version control and download caches, are not part of a
// checkpoint; links to folders are followed, but for those that lead back to where they are.
Status ListBelow(const fs::path& directory, const fs::path& relative, std::vector<fs::path>* above,
                 std::vector<std::string>* files) {
  std::error_code code;
  const fs::path here = fs::canonical(directory / relative, code);
  if (code) return CantList(directory / relative, code);
  if (std::find(above->begin(), above->end(), here) != above->end()) return {};
  above->push_back(here);
  fs::directory_iterator it(here, code);
  for (; !code && it != fs::directory_iterator(); it.increment(code)) {
    const fs::path name = it->path().filename();
    std::error_code ignored;
    if (!fs::is_directory(it->path(), ignored)) {
      files->push_back((relative / name).string());
    } else if (!name.string().starts_with(".")) {
      if (auto status = ListBelow(directory, relative / name, above, files); !status) return status;
    }
  }
  above->pop_back();
  if (code) return CantList(directory / relative, code);
  return {};
}

Result<std::vector<std::string>> ListFiles(const fs::path& directory) {
  std::vector<std::string> files;
  std::vector<fs::path> above;
  if (auto status = ListBelow(directory, {}, &above, &files); !status) return status.errors();
  std::sort(files.begin(), files.end());
  return files;
}

Result<Header> ReadHeaderOf(const File& file, uint64_t size) {
  const std::string name = file.path().string();
  std::vector<std::byte> first(std::min(size, kLengthBytes));
  if (auto status = file.ReadAt(first, 0); !status) return status.errors();
  auto length = ParseHeaderLength(first, size, name);
  if (!length) return length.errors();
  std::string json(*length, '\0');
  if (auto status = file.ReadAt(std::as_writable_bytes(std::span(json)), kLengthBytes); !status) return status.errors();
  return ParseHeader(json, size, name);
}

struct StampedHeader {
  Header header;
  FileStamp stamp;
};

Result<StampedHeader> ReadStampedHeader(const fs::path& path) {
  auto file = File::OpenForReading(path);
  if (!file) return file.errors();
  // Before the header is read: a change between the two must show later.
  auto stamp = file->Stamp();
  if (!stamp) return stamp.errors();
  auto header = ReadHeaderOf(*file, stamp->size);
  if (!header) return header.errors();
  return StampedHeader{std::move(*header), *stamp};
}

Result<TensorTable> ReadHeaders(const fs::path& directory, const std::vector<std::string>& shards) {
  TensorTable table;
  Errors errors;
  for (const std::string& shard : shards) {
    const fs::path path = directory / shard;
    auto read = ReadStampedHeader(path);
    if (!read) {
      errors.insert(errors.end(), read.errors().begin(), read.errors().end());
      continue;
    }
    Header& header = read->header;
    const auto number = static_cast<uint32_t>(table.shards.size());
    table.shards.push_back(
        {shard, header.data_start, header.data_start + header.data_bytes, std::move(header.metadata), read->stamp});
    for (TensorInfo& tensor : header.tensors) table.tensors.push_back({std::move(tensor), number});
  }
  if (!errors.empty()) return errors;
  return table;
}

// Where each name stands; a name in two shards is an error whatever the index says.
Errors CheckDuplicates(const TensorTable& table, const fs::path& directory) {
  std::unordered_map<std::string_view, uint32_t> seen;
  seen.reserve(table.tensors.size() * 2);
  Errors errors;
  for (const StoredTensor& tensor : table.tensors) {
    const auto [it, fresh] = seen.emplace(tensor.info.name, tensor.shard);
    if (fresh) continue;
    errors.push_back({ErrorKind::kInvalidIndex,
                      fmt::format("the tensor stands in {} as well", table.shards[it->second].name),
                      (directory / table.shards[tensor.shard].name).string(),
                      tensor.info.name,
                      {}});
  }
  return errors;
}

Errors CheckIndex(const TensorTable& table, const Index& index, const fs::path& directory) {
  const std::string file = (directory / kIndexName).string();
  std::unordered_map<std::string_view, std::string_view> stored;
  stored.reserve(table.tensors.size() * 2);
  for (const StoredTensor& tensor : table.tensors) stored.emplace(tensor.info.name, table.shards[tensor.shard].name);
  Errors errors;
  const std::string hint = "pass --repair-index to rebuild the index from the headers";
  std::unordered_set<std::string_view> shards;
  for (const Shard& shard : table.shards) shards.insert(shard.name);
  std::unordered_set<std::string_view> listed;
  listed.reserve(index.weight_map.size() * 2);
  for (const auto& [name, shard] : index.weight_map) {
    listed.insert(name);
    // A missing shard is reported once, not once for each of its tensors.
    if (!shards.contains(shard)) continue;
    const auto it = stored.find(name);
    if (it == stored.end()) {
      errors.push_back(
          {ErrorKind::kInvalidIndex, "the index names this tensor, but no shard holds it", file, name, hint});
    } else if (it->second != shard) {
      errors.push_back({ErrorKind::kInvalidIndex,
                        fmt::format("the index places this tensor in {}, but it is in {}", shard, it->second), file,
                        name, hint});
    }
  }
  for (const StoredTensor& tensor : table.tensors) {
    if (listed.contains(tensor.info.name)) continue;
    errors.push_back({ErrorKind::kInvalidIndex, "the index does not name this tensor",
                      (directory / table.shards[tensor.shard].name).string(), tensor.info.name, hint});
  }
  return errors;
}

Result<std::optional<Index>> ReadIndex(const fs::path& path) {
  std::error_code code;
  if (fs::symlink_status(path, code).type() == fs::file_type::not_found) return std::optional<Index>();
  auto text = ReadTextFile(path, kMaxIndexBytes);
  if (!text) return text.errors();
  auto index = ParseIndex(*text, path.string());
  if (!index) return index.errors();
  return std::optional<Index>(std::move(*index));
}

bool IsWeights(const std::string& file) {
  return file.ends_with(".safetensors") && file.find('/') == std::string::npos;
}

}  // namespace

Result<Header> ReadHeader(const fs::path& path) {
  auto read = ReadStampedHeader(path);
  if (!read) return read.errors();
  return std::move(read->header);
}

Result<Checkpoint> OpenCheckpoint(const fs::path& directory, const OpenOptions& options) {
  std::error_code code;
  if (!fs::is_directory(directory, code)) {
    return Error{ErrorKind::kIo,
                 fs::exists(directory, code) ? "not a folder" : "no such folder",
                 directory.string(),
                 {},
                 "give the folder that holds config.json and the safetensors files"};
  }
  if (!options.being_changed) {
    if (auto status = CheckNoUnfinishedChange(directory); !status) return status.errors();
  }
  auto files = ListFiles(directory);
  if (!files) return files.errors();
  Checkpoint checkpoint;
  checkpoint.directory = directory;
  if (!options.repair_index) {
    auto index = ReadIndex(directory / kIndexName);
    if (!index) return index.errors();
    checkpoint.index = std::move(*index);
  }
  std::vector<std::string> weights;
  for (const std::string& file : *files) {
    if (IsWeights(file)) {
      weights.push_back(file);
    } else if (file != kIndexName) {
      checkpoint.sidecars.push_back(file);
    }
  }
  auto shards = ChooseShards(weights, checkpoint.index, options.repair_index, directory);
  if (!shards) return shards.errors();
  for (const std::string& file : shards->left_out) {
    checkpoint.notes.push_back(fmt::format("{} is left out: its naming is not that of this checkpoint's shards", file));
  }
  Errors errors = std::move(shards->errors);
  auto table = ReadHeaders(directory, shards->shards);
  if (!table) {
    errors.insert(errors.end(), table.errors().begin(), table.errors().end());
    return errors;
  }
  checkpoint.table = std::move(*table);
  for (Error& error : CheckDuplicates(checkpoint.table, directory)) errors.push_back(std::move(error));
  if (checkpoint.index) {
    for (Error& error : CheckIndex(checkpoint.table, *checkpoint.index, directory)) errors.push_back(std::move(error));
  }
  if (!errors.empty()) return errors;
  const std::vector<Shard>& read = checkpoint.table.shards;
  // One that is to be rebuilt was not read; a stale one would stay beside a single file that is changed in place.
  const bool had_index = checkpoint.index || fs::exists(directory / kIndexName, code);
  checkpoint.sharded = had_index || read.size() > 1 || IsNumberedShard(read[0].name);
  if (checkpoint.sharded && !checkpoint.index) checkpoint.notes.push_back("the index is rebuilt from the headers");
  return checkpoint;
}

Result<ReferenceNames> OpenReference(const fs::path& path) {
  std::error_code code;
  ReferenceNames reference;
  if (fs::is_directory(path, code)) {
    auto files = ListFiles(path);
    if (!files) return files.errors();
    const bool has_weights = std::any_of(files->begin(), files->end(), IsWeights);
    if (has_weights || !fs::exists(path / kIndexName, code)) {
      auto checkpoint = OpenCheckpoint(path);
      if (!checkpoint) return checkpoint.errors();
      for (const StoredTensor& tensor : checkpoint->table.tensors) reference.names.push_back(tensor.info.name);
      reference.table = std::move(checkpoint->table);
      return reference;
    }
  }
  const fs::path index_path = fs::is_directory(path, code) ? path / kIndexName : path;
  auto text = ReadTextFile(index_path, kMaxIndexBytes);
  if (!text) return text.errors();
  auto index = ParseIndex(*text, index_path.string());
  if (!index) return index.errors();
  for (auto& [name, shard] : index->weight_map) reference.names.push_back(std::move(name));
  return reference;
}

}  // namespace quantport
