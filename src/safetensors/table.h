// All tensors of all shards of one checkpoint, as one table.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/file_stamp.h"
#include "safetensors/header.h"

namespace quantport {

struct Shard {
  std::string name;         // file name inside the checkpoint's folder; absolute for one of another checkpoint
  uint64_t data_start = 0;  // file offset of the data section
  uint64_t file_bytes = 0;
  Metadata metadata;
  std::optional<FileStamp> stamp = {};  // of the file when the header was read
};

struct StoredTensor {
  TensorInfo info;
  uint32_t shard = 0;  // index into TensorTable::shards
};

struct TensorTable {
  std::vector<Shard> shards;
  std::vector<StoredTensor> tensors;  // shard by shard, in the order of their data

  uint64_t TotalBytes() const {
    uint64_t total = 0;
    for (const StoredTensor& tensor : tensors) total += tensor.info.end - tensor.info.begin;
    return total;
  }
};

}  // namespace quantport
