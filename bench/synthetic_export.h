// The tensor table of a MiniMax-M3 NVFP4 export of any size, without files: what planning sees of one.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "safetensors/table.h"

namespace quantport::bench {

// In-memory names as ModelOpt exports them, whole layers, at least `tensors` of them. Shards of 5 GB; inside a shard
// wide elements first, then by name, as the official writer orders them.
TensorTable MakeExport(size_t tensors);

// One header with all tensors of `table`, as if they stood in one file.
struct FlatHeader {
  std::vector<TensorInfo> tensors;
  std::string json;  // without the length in front
  uint64_t file_bytes = 0;
};
FlatHeader MakeHeader(const TensorTable& table);

}  // namespace quantport::bench
