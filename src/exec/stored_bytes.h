// Bytes and numbers of stored tensors that a plan reads, a stretch at a time.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "exec/sources.h"
#include "plan/plan.h"
#include "quantize/element.h"
#include "quantport/error.h"

namespace quantport {

quantize::ElementType ElementTypeOf(DType dtype);

// Nothing where bytes [begin, begin + bytes) are the tensor's own. What follows it in its file is another's, and would
// pass for numbers. Errors: kQuantConversionUnsupported naming the tensor.
Status CheckWithin(const SourceTensor& tensor, uint64_t begin, uint64_t bytes);

// Safe in several threads.
class StoredBytes {
 public:
  // Both must outlive this.
  StoredBytes(const Plan& plan, const Sources& sources) : plan_(plan), sources_(sources) {}

  // Bytes [begin, begin + bytes) of the tensor, an index into Plan::tensors. Errors: kIo; as CheckWithin.
  Result<std::vector<uint8_t>> Read(uint32_t tensor, uint64_t begin, uint64_t bytes) const;
  // Of `rows` rows of `row_bytes` bytes each, `bytes` of each; those of the first row begin at `begin`.
  Result<std::vector<uint8_t>> ReadColumns(uint32_t tensor, uint64_t rows, uint64_t row_bytes, uint64_t begin,
                                           uint64_t bytes) const;
  DType TypeOf(uint32_t tensor) const { return plan_.tensors[tensor].dtype; }
  // What the tensor's bytes are as numbers of its type: any float that a producer keeps scales in (IsScaleType).
  // Errors: kQuantConversionUnsupported for other types.
  Result<std::vector<float>> Numbers(uint32_t tensor, std::span<const uint8_t> bytes) const;

 private:
  const Plan& plan_;
  const Sources& sources_;
};

}  // namespace quantport
