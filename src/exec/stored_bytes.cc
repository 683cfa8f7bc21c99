#include "exec/stored_bytes.h"

#include <fmt/format.h>

namespace quantport {

quantize::ElementType ElementTypeOf(DType dtype) {
  if (dtype == DType::kF32) return quantize::ElementType::kF32;
  return dtype == DType::kF16 ? quantize::ElementType::kF16 : quantize::ElementType::kBF16;
}

Status CheckWithin(const SourceTensor& tensor, uint64_t begin, uint64_t bytes) {
  if (begin <= tensor.bytes && bytes <= tensor.bytes - begin) return {};
  return Error{ErrorKind::kQuantConversionUnsupported,
               fmt::format("{} bytes from byte {} on are asked for, and it has {}", bytes, begin, tensor.bytes),
               {},
               tensor.name,
               "its shape is not what its weight's format calls for"};
}

Result<std::vector<uint8_t>> StoredBytes::Read(const CodedPart& part, uint64_t begin, uint64_t bytes) const {
  return ReadColumns(part, 1, bytes, begin, bytes);
}

Result<std::vector<uint8_t>> StoredBytes::ReadColumns(const CodedPart& part, uint64_t rows, uint64_t row_bytes,
                                                      uint64_t begin, uint64_t bytes) const {
  const SourceTensor& source = plan_.tensors[part.tensor];
  const bool whole = bytes == row_bytes;
  const uint64_t reads = whole ? 1 : rows;
  const uint64_t each = whole ? rows * bytes : bytes;
  if (reads == 0 || each == 0) return std::vector<uint8_t>();
  if (auto s = CheckWithin(source, begin, (reads - 1) * row_bytes + each); !s) return s.errors();
  std::vector<uint8_t> out(rows * bytes);
  const std::span<std::byte> buffer = std::as_writable_bytes(std::span(out));
  for (uint64_t row = 0; row < reads; ++row) {
    auto status =
        sources_[source.source].ReadAt(buffer.subspan(row * each, each), source.offset + row * row_bytes + begin);
    if (!status) return status.errors();
  }
  return out;
}

}  // namespace quantport
