#include "load/small_tensors.h"

#include <span>

namespace quantport {
namespace {

// A tensor that says how others are stored is a few hundred bytes of JSON, or a few numbers.
constexpr uint64_t kMaxSmallTensor = 1 << 20;

}  // namespace

std::optional<std::string> SmallTensorReader::Read(uint32_t index) {
  const StoredTensor& tensor = checkpoint_.table.tensors[index];
  const Shard& shard = checkpoint_.table.shards[tensor.shard];
  const uint64_t bytes = tensor.info.end - tensor.info.begin;
  if (bytes > kMaxSmallTensor) return std::nullopt;
  if (!file_ || shard_ != tensor.shard) {
    auto file = checkpoint_.folder->Open(shard.name);
    if (!file) return Fail(std::move(file.errors()));
    file_ = std::move(*file);
    shard_ = tensor.shard;
  }
  std::string content(bytes, '\0');
  auto status = file_->ReadAt(std::as_writable_bytes(std::span(content)), shard.data_start + tensor.info.begin);
  if (!status) return Fail(std::move(status.errors()));
  return content;
}

std::optional<std::string> SmallTensorReader::Fail(Errors errors) {
  errors_.insert(errors_.end(), errors.begin(), errors.end());
  return std::nullopt;
}

}  // namespace quantport
