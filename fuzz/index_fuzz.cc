// Indexes: whatever is accepted names plain files, and comes back equal and as JSON when it is written and read again.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "check.h"
#include "safetensors/index.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quantport;
  using fuzz::Check;
  const auto index = ParseIndex(std::string_view(reinterpret_cast<const char*>(data), size), "fuzz");
  if (!index) {
    for (const Error& error : index.errors()) (void)error.ToString();
    return 0;
  }
  for (const auto& [name, shard] : index->weight_map) {
    Check(shard.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos, "a shard is no path");
    Check(!shard.empty() && shard != "." && shard != "..", "a shard is a file");
  }
  const std::string text = SerializeIndex(*index);
  Check(nlohmann::json::accept(text), "a written index is JSON");
  const auto again = ParseIndex(text, "again");
  Check(again.ok(), "a written index is accepted");
  auto sorted = index->weight_map;
  std::sort(sorted.begin(), sorted.end());
  Check(again->weight_map == sorted, "the map comes back");
  Check(again->total_size == index->total_size, "total_size comes back");
  Check(again->other_metadata == index->other_metadata, "metadata comes back");
  Check(SerializeIndex(*again) == text, "writing is stable");
  return 0;
}
