// model.safetensors.index.json: which shard holds which tensor.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "quantport/error.h"

namespace quantport {

inline constexpr std::string_view kIndexName = "model.safetensors.index.json";

struct Index {
  // tensor name -> shard file name, in the file's order.
  std::vector<std::pair<std::string, std::string>> weight_map;
  std::optional<uint64_t> total_size;  // `metadata.total_size`: bytes of all tensors
  // The other members of `metadata`, as JSON text, in the file's order (for example total_parameters).
  std::vector<std::pair<std::string, std::string>> other_metadata;

  friend bool operator==(const Index&, const Index&) = default;
};

// Errors: kInvalidIndex naming `file`. A shard name that is a path (a slash, "..") is refused: it could reach
// outside the checkpoint's folder.
Result<Index> ParseIndex(std::string_view text, std::string_view file);

// The text as transformers writes it: indent 2, metadata first, weight_map sorted by name.
std::string SerializeIndex(const Index& index);

}  // namespace quantport
