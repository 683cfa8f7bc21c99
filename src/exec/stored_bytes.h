// Bytes of stored tensors that a plan reads, a stretch at a time.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "codec/part_reader.h"
#include "exec/sources.h"
#include "plan/plan.h"
#include "quantize/element.h"
#include "quantport/error.h"

namespace quantport {

quantize::ElementType ElementTypeOf(DType dtype);

// Nothing where bytes [begin, begin + bytes) are the tensor's own. What follows it in its file is another's, and would
// pass for numbers. Errors: kQuantConversionUnsupported naming the tensor.
Status CheckWithin(const SourceTensor& tensor, uint64_t begin, uint64_t bytes);

// Reads parts whose `tensor` is an index into Plan::tensors. Safe in several threads. Errors: kIo; as CheckWithin.
class StoredBytes : public PartReader {
 public:
  // Both must outlive this.
  StoredBytes(const Plan& plan, const Sources& sources) : plan_(plan), sources_(sources) {}

  Result<std::vector<uint8_t>> Read(const CodedPart& part, uint64_t begin, uint64_t bytes) const override;
  Result<std::vector<uint8_t>> ReadColumns(const CodedPart& part, uint64_t rows, uint64_t row_bytes, uint64_t begin,
                                           uint64_t bytes) const override;

 private:
  const Plan& plan_;
  const Sources& sources_;
};

}  // namespace quantport
