#include "codec/part_reader.h"

#include <fmt/format.h>

#include <cstring>

#include "quantize/codes.h"
#include "quantize/element.h"

namespace quantport {
namespace {

float NumberAt(const uint8_t* bytes, DType dtype) {
  switch (dtype) {
    case DType::kF64: {
      double value;
      std::memcpy(&value, bytes, sizeof value);
      return static_cast<float>(value);
    }
    case DType::kF32:
      return quantize::LoadElement({bytes, quantize::ElementType::kF32, 1}, 0);
    case DType::kBF16:
      return quantize::LoadElement({bytes, quantize::ElementType::kBF16, 1}, 0);
    case DType::kF16:
      return quantize::LoadElement({bytes, quantize::ElementType::kF16, 1}, 0);
    case DType::kF8E4M3:
      return quantize::DecodeE4m3(*bytes);
    case DType::kF8E5M2:  // the upper half of an F16
      return quantize::FromF16(static_cast<uint16_t>(*bytes << 8));
    default:
      return quantize::DecodeE8m0(*bytes);
  }
}

}  // namespace

bool IsScaleType(DType dtype) {
  switch (dtype) {
    case DType::kF64:
    case DType::kF32:
    case DType::kBF16:
    case DType::kF16:
    case DType::kF8E4M3:
    case DType::kF8E5M2:
    case DType::kF8E8M0:
      return true;
    default:
      return false;
  }
}

Result<std::vector<float>> NumbersOf(DType dtype, std::span<const uint8_t> bytes) {
  if (!IsScaleType(dtype)) {
    return Error{ErrorKind::kQuantConversionUnsupported,
                 fmt::format("its numbers are {}, and not of a type that scales are kept in", DTypeName(dtype)),
                 {},
                 {},
                 {}};
  }
  const size_t size = static_cast<size_t>(DTypeBits(dtype)) / 8;
  std::vector<float> numbers(bytes.size() / size);
  for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = NumberAt(bytes.data() + i * size, dtype);
  return numbers;
}

Result<std::vector<float>> ReadNumbers(const PartReader& reader, const CodedPart& part, uint64_t first,
                                       uint64_t count) {
  const uint64_t size = static_cast<uint64_t>(DTypeBits(part.dtype)) / 8;
  auto bytes = reader.Read(part, first * size, count * size);
  if (!bytes) return bytes.errors();
  return NumbersOf(part.dtype, *bytes);
}

}  // namespace quantport
