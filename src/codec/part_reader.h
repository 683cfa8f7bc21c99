// What codecs read: bytes of a part, wherever it is stored.
#pragma once

#include <cstdint>
#include <vector>

#include "format/coded_weight.h"
#include "quantport/error.h"

namespace quantport {

class PartReader {
 public:
  virtual ~PartReader() = default;
  // Bytes [begin, begin + bytes) of the part. Never those of another tensor: an error where it has not as many.
  virtual Result<std::vector<uint8_t>> Read(const CodedPart& part, uint64_t begin, uint64_t bytes) const = 0;
  // Of `rows` rows of `row_bytes` bytes each, `bytes` of each; those of the first row begin at `begin`.
  virtual Result<std::vector<uint8_t>> ReadColumns(const CodedPart& part, uint64_t rows, uint64_t row_bytes,
                                                   uint64_t begin, uint64_t bytes) const = 0;
};

// Whether numbers of this type can be scales: every float of whole bytes that a producer writes. The others are refused
// instead of being read as one of these.
bool IsScaleType(DType dtype);

// Numbers [first, first + count) of a part, of the type it has. Errors: as PartReader; kQuantConversionUnsupported for
// types that are none of IsScaleType.
Result<std::vector<float>> ReadNumbers(const PartReader& reader, const CodedPart& part, uint64_t first, uint64_t count);

// The same of bytes that were read already.
Result<std::vector<float>> NumbersOf(DType dtype, std::span<const uint8_t> bytes);

}  // namespace quantport
