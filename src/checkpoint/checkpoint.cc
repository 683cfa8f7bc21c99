#include "checkpoint/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "checkpoint/shards.h"

namespace quantport {

namespace {

// An index of a few million tensors; a larger file is not one.
constexpr uint64_t kMaxIndexBytes = 1ull << 30;
// Of all shards together. A million tensors take 160 MB; a stranger's file could name several in each 100 bytes, and
// each costs a few thousand in memory.
constexpr uint64_t kMaxBytesOfHeaders = 512ull << 20;

// `left`: how many bytes headers may have, this one included.
Result<Header> ReadHeaderOf(const ByteSource& file, uint64_t size, uint64_t* left) {
  const std::string& name = file.address();
  std::vector<std::byte> first(std::min(size, kLengthBytes));
  if (auto status = file.ReadAt(first, 0); !status) return status.errors();
  auto length = ParseHeaderLength(first, size, name);
  if (!length) return length.errors();
  if (*length > *left) {
    return Error{
        ErrorKind::kInvalidHeader,
        fmt::format("with this header, those of the checkpoint's shards have more than {} bytes", kMaxBytesOfHeaders),
        name,
        {},
        "no checkpoint has so many tensors"};
  }
  *left -= *length;
  std::string json(*length, '\0');
  if (auto status = file.ReadAt(std::as_writable_bytes(std::span(json)), kLengthBytes); !status) return status.errors();
  return ParseHeader(json, size, name);
}

struct StampedHeader {
  Header header;
  FileStamp stamp;
};

Result<StampedHeader> ReadStampedHeader(const ByteSource& file, uint64_t* left) {
  // Before the header is read: a change between the two must show later.
  auto stamp = file.Stamp();
  if (!stamp) return stamp.errors();
  auto header = ReadHeaderOf(file, stamp->size, left);
  if (!header) return header.errors();
  return StampedHeader{std::move(*header), std::move(*stamp)};
}

Result<StampedHeader> ReadStampedHeader(const Folder& folder, const std::string& shard, uint64_t* left) {
  auto file = folder.Open(shard);
  if (!file) return file.errors();
  return ReadStampedHeader(**file, left);
}

Result<TensorTable> ReadHeaders(const Folder& folder, const std::vector<std::string>& shards) {
  TensorTable table;
  Errors errors;
  uint64_t left = kMaxBytesOfHeaders;
  for (const std::string& shard : shards) {
    auto read = ReadStampedHeader(folder, shard, &left);
    if (!read) {
      errors.insert(errors.end(), read.errors().begin(), read.errors().end());
      continue;
    }
    Header& header = read->header;
    const auto number = static_cast<uint32_t>(table.shards.size());
    table.shards.push_back({shard, header.data_start, header.data_start + header.data_bytes, std::move(header.metadata),
                            std::move(read->stamp)});
    for (TensorInfo& tensor : header.tensors) table.tensors.push_back({std::move(tensor), number});
  }
  if (!errors.empty()) return errors;
  return table;
}

// Where each name stands; a name in two shards is an error whatever the index says.
Errors CheckDuplicates(const TensorTable& table, const Folder& folder) {
  std::unordered_map<std::string_view, uint32_t> seen;
  seen.reserve(table.tensors.size() * 2);
  Errors errors;
  for (const StoredTensor& tensor : table.tensors) {
    const auto [it, fresh] = seen.emplace(tensor.info.name, tensor.shard);
    if (fresh) continue;
    errors.push_back({ErrorKind::kInvalidIndex,
                      fmt::format("the tensor stands in {} as well", table.shards[it->second].name),
                      folder.AddressOf(table.shards[tensor.shard].name),
                      tensor.info.name,
                      {}});
  }
  return errors;
}

Errors CheckIndex(const TensorTable& table, const Index& index, const Folder& folder) {
  const std::string file = folder.AddressOf(kIndexName);
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
                      folder.AddressOf(table.shards[tensor.shard].name), tensor.info.name, hint});
  }
  return errors;
}

Result<Index> ReadIndex(const ByteSource& file) {
  auto text = ReadText(file, kMaxIndexBytes);
  if (!text) return text.errors();
  return ParseIndex(*text, file.address());
}

Result<Index> ReadIndex(const Folder& folder) {
  auto file = folder.Open(kIndexName);
  if (!file) return file.errors();
  return ReadIndex(**file);
}

bool IsWeights(const std::string& file) {
  return file.ends_with(".safetensors") && file.find('/') == std::string::npos;
}

}  // namespace

Result<Header> ReadHeader(const ByteSource& file) {
  uint64_t left = kMaxBytesOfHeaders;
  auto read = ReadStampedHeader(file, &left);
  if (!read) return read.errors();
  return std::move(read->header);
}

Result<Checkpoint> OpenCheckpoint(std::shared_ptr<const Folder> folder, const OpenOptions& options) {
  if (!options.being_changed) {
    if (auto status = folder->CheckNoUnfinishedChange(); !status) return status.errors();
  }
  auto files = folder->List(options.follow_links);
  if (!files) return files.errors();
  Checkpoint checkpoint;
  checkpoint.folder = folder;
  const bool has_index = folder->Has(kIndexName);
  if (has_index && !options.repair_index) {
    auto index = ReadIndex(*folder);
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
  auto shards = ChooseShards(weights, checkpoint.index, options.repair_index && !options.whole, folder->address());
  if (!shards) return shards.errors();
  if (has_index && options.repair_index && options.whole) {
    // One that can't be read names no shards.
    if (const auto index = ReadIndex(*folder)) {
      Errors missing = FindMissingShards(weights, *index, folder->address());
      shards->errors.insert(shards->errors.end(), missing.begin(), missing.end());
    }
  }
  if (options.all_files) {
    checkpoint.sidecars.insert(checkpoint.sidecars.end(), shards->left_out.begin(), shards->left_out.end());
    std::sort(checkpoint.sidecars.begin(), checkpoint.sidecars.end());
  } else {
    checkpoint.left_out = std::move(shards->left_out);
  }
  if (!options.follow_links) {
    std::copy_if(checkpoint.sidecars.begin(), checkpoint.sidecars.end(), std::back_inserter(checkpoint.outside),
                 [&](const std::string& file) { return folder->LeadsOutside(file); });
  }
  for (const std::string& file : checkpoint.left_out) {
    checkpoint.notes.push_back(fmt::format("{} is left out: its naming is not that of this checkpoint's shards", file));
  }
  Errors errors = std::move(shards->errors);
  auto table = ReadHeaders(*folder, shards->shards);
  if (!table) {
    errors.insert(errors.end(), table.errors().begin(), table.errors().end());
    return errors;
  }
  checkpoint.table = std::move(*table);
  for (Error& error : CheckDuplicates(checkpoint.table, *folder)) errors.push_back(std::move(error));
  if (checkpoint.index) {
    for (Error& error : CheckIndex(checkpoint.table, *checkpoint.index, *folder)) errors.push_back(std::move(error));
  }
  if (!errors.empty()) return errors;
  const std::vector<Shard>& read = checkpoint.table.shards;
  // An index that is to be rebuilt was not read; a stale one would stay beside a single file that is changed in place.
  checkpoint.sharded = has_index || read.size() > 1 || IsNumberedShard(read[0].name);
  if (checkpoint.sharded && !checkpoint.index) checkpoint.notes.push_back("the index is rebuilt from the headers");
  return checkpoint;
}

Result<Checkpoint> OpenCheckpoint(const Storage& storage, const std::string& address, const OpenOptions& options) {
  auto folder = storage.OpenFolder(address);
  if (!folder) return folder.errors();
  return OpenCheckpoint(std::move(*folder), options);
}

namespace {

Result<ReferenceNames> NamesOf(Result<Index> index) {
  if (!index) return index.errors();
  ReferenceNames reference;
  for (auto& [name, shard] : index->weight_map) reference.names.push_back(std::move(name));
  return reference;
}

}  // namespace

Result<ReferenceNames> OpenReference(const Storage& storage, const std::string& address) {
  if (!storage.IsFolder(address)) {
    auto file = storage.OpenFile(address);
    if (!file) return file.errors();
    return NamesOf(ReadIndex(**file));
  }
  auto folder = storage.OpenFolder(address);
  if (!folder) return folder.errors();
  auto files = (*folder)->List(false);
  if (!files) return files.errors();
  const bool has_weights = std::any_of(files->begin(), files->end(), IsWeights);
  if (!has_weights && (*folder)->Has(kIndexName)) return NamesOf(ReadIndex(**folder));
  auto checkpoint = OpenCheckpoint(std::move(*folder));
  if (!checkpoint) return checkpoint.errors();
  ReferenceNames reference;
  for (const StoredTensor& tensor : checkpoint->table.tensors) reference.names.push_back(tensor.info.name);
  reference.table = std::move(checkpoint->table);
  return reference;
}

}  // namespace quantport
