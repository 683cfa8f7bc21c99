#include "exec/stored_bytes.h"

#include <fmt/format.h>

#include <cstring>

#include "plan/stored_source.h"
#include "quantize/codes.h"

namespace quantport {
namespace {

float NumberAt(const uint8_t* bytes, DType dtype) {
  switch (dtype) {
    case DType::kF64: {
      double value;
      std::memcpy(&value, bytes, sizeof value);
      return static_cast<float>(value);
    }
    case DType::kF8E4M3:
      return quantize::DecodeE4m3(*bytes);
    case DType::kF8E5M2:  // the upper half of an F16
      return quantize::FromF16(static_cast<uint16_t>(*bytes << 8));
    case DType::kF8E8M0:
      return quantize::DecodeE8m0(*bytes);
    default:
      return quantize::LoadElement({bytes, ElementTypeOf(dtype), 1}, 0);
  }
}

}  // namespace

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

Result<std::vector<uint8_t>> StoredBytes::Read(uint32_t tensor, uint64_t begin, uint64_t bytes) const {
  return ReadColumns(tensor, 1, bytes, begin, bytes);
}

Result<std::vector<uint8_t>> StoredBytes::ReadColumns(uint32_t tensor, uint64_t rows, uint64_t row_bytes,
                                                      uint64_t begin, uint64_t bytes) const {
  const SourceTensor& source = plan_.tensors[tensor];
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

Result<std::vector<float>> StoredBytes::Numbers(uint32_t tensor, std::span<const uint8_t> bytes) const {
  const SourceTensor& source = plan_.tensors[tensor];
  if (!IsScaleType(source.dtype)) {
    return Error{ErrorKind::kQuantConversionUnsupported,
                 fmt::format("its numbers are {}, and not of a type that scales are kept in", DTypeName(source.dtype)),
                 {},
                 source.name,
                 {}};
  }
  const size_t size = static_cast<size_t>(DTypeBits(source.dtype)) / 8;
  std::vector<float> numbers(bytes.size() / size);
  for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = NumberAt(bytes.data() + i * size, source.dtype);
  return numbers;
}

}  // namespace quantport
