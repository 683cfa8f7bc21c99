// Bytes and numbers of stored tensors that a plan reads, a stretch at a time.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "io/file.h"
#include "plan/plan.h"
#include "quantize/element.h"
#include "quantport/error.h"

namespace quantport {

quantize::ElementType ElementTypeOf(DType dtype);

// Safe in several threads.
class StoredBytes {
 public:
  // Both must outlive this.
  StoredBytes(const Plan& plan, std::span<const File> sources) : plan_(plan), sources_(sources) {}

  // Bytes [begin, begin + bytes) of the tensor, an index into Plan::tensors.
  Result<std::vector<uint8_t>> Read(uint32_t tensor, uint64_t begin, uint64_t bytes) const;
  // Of `rows` rows of `row_bytes` bytes each, `bytes` of each; those of the first row begin at `begin`.
  Result<std::vector<uint8_t>> ReadColumns(uint32_t tensor, uint64_t rows, uint64_t row_bytes, uint64_t begin,
                                           uint64_t bytes) const;
  // Numbers of F32, BF16, F16, F8_E4M3 or E8M0, as which any other type is read.
  static std::vector<float> Numbers(std::span<const uint8_t> bytes, DType dtype);

 private:
  const Plan& plan_;
  std::span<const File> sources_;
};

}  // namespace quantport
