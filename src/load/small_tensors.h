// Tensors that are read where only names and forms are looked at: scalars, and those that say how others are stored.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "checkpoint/checkpoint.h"
#include "quantport/error.h"

namespace quantport {

// Reads by a tensor's place in the checkpoint's table, which must outlive it; a shard stays open between reads, so they
// go best from the front to the back.
class SmallTensorReader {
 public:
  explicit SmallTensorReader(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  // The bytes. Nothing for a tensor that is not small, and for one that can't be read, of which errors() tells.
  std::optional<std::string> Read(uint32_t index);

  const Errors& errors() const { return errors_; }

 private:
  std::optional<std::string> Fail(Errors errors);

  const Checkpoint& checkpoint_;
  std::unique_ptr<const ByteSource> file_;
  uint32_t shard_ = 0;
  Errors errors_;
};

}  // namespace quantport
