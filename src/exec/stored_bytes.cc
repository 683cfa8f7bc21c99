#include "exec/stored_bytes.h"

#include <cstring>

#include "quantize/codes.h"

namespace quantport {

quantize::ElementType ElementTypeOf(DType dtype) {
  if (dtype == DType::kF32) return quantize::ElementType::kF32;
  return dtype == DType::kF16 ? quantize::ElementType::kF16 : quantize::ElementType::kBF16;
}

Result<std::vector<uint8_t>> StoredBytes::Read(uint32_t tensor, uint64_t begin, uint64_t bytes) const {
  return ReadColumns(tensor, 1, bytes, begin, bytes);
}

Result<std::vector<uint8_t>> StoredBytes::ReadColumns(uint32_t tensor, uint64_t rows, uint64_t row_bytes,
                                                      uint64_t begin, uint64_t bytes) const {
  std::vector<uint8_t> out(rows * bytes);
  const SourceTensor& source = plan_.tensors[tensor];
  const bool whole = bytes == row_bytes;
  const uint64_t reads = whole ? 1 : rows;
  const uint64_t each = whole ? rows * bytes : bytes;
  const std::span<std::byte> buffer = std::as_writable_bytes(std::span(out));
  for (uint64_t row = 0; row < reads && each > 0; ++row) {
    auto status =
        sources_[source.source].ReadAt(buffer.subspan(row * each, each), source.offset + row * row_bytes + begin);
    if (!status) return status.errors();
  }
  return out;
}

std::vector<float> StoredBytes::Numbers(std::span<const uint8_t> bytes, DType dtype) {
  const size_t size = static_cast<size_t>(DTypeBits(dtype)) / 8;
  const size_t count = bytes.size() / size;
  std::vector<float> numbers(count);
  for (size_t i = 0; i < count; ++i) {
    if (size == 4 || size == 2) {
      numbers[i] = quantize::LoadElement({bytes.data(), ElementTypeOf(dtype), count}, i);
    } else {
      numbers[i] = dtype == DType::kF8E4M3 ? quantize::DecodeE4m3(bytes[i]) : quantize::DecodeE8m0(bytes[i]);
    }
  }
  return numbers;
}

}  // namespace quantport
