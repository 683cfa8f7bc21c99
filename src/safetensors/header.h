// One safetensors file's header: parse, validate, write. Pure functions of byte spans.
//
// The layout of a file: 8 bytes little-endian header length N, N bytes of JSON, then the data. Offsets in the JSON
// count from the end of the header. https://github.com/huggingface/safetensors#format
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "quantport/dtype.h"
#include "quantport/error.h"

namespace quantport {

// The official library refuses longer headers, so a file with one could never be loaded: the cap holds for what is
// read and, padding included, for what is written.
inline constexpr uint64_t kMaxHeaderBytes = 100'000'000;

// The length field in front of the header.
inline constexpr uint64_t kLengthBytes = 8;

struct TensorInfo {
  std::string name;
  DType dtype = DType::kU8;
  std::vector<uint64_t> shape;  // in elements; empty for a 0-d tensor
  uint64_t begin = 0;           // byte range in the data section, [begin, end)
  uint64_t end = 0;

  friend bool operator==(const TensorInfo&, const TensorInfo&) = default;
};

using Metadata = std::vector<std::pair<std::string, std::string>>;

struct Header {
  std::vector<TensorInfo> tensors;  // in the order of their data, without holes from 0 to data_bytes
  Metadata metadata;                // `__metadata__`, in the file's order
  uint64_t data_start = 0;          // file offset of the data section, kLengthBytes + header length
  uint64_t data_bytes = 0;
};

// Number of data bytes of a tensor, or nothing on overflow or where sub-byte elements don't fill whole bytes.
std::optional<uint64_t> TensorBytes(DType dtype, std::span<const uint64_t> shape);

// The header length stored in a file's first 8 bytes, checked against the cap and the file's size.
// Errors: kInvalidHeader naming `file`.
Result<uint64_t> ParseHeaderLength(std::span<const std::byte> first_bytes, uint64_t file_size, std::string_view file);

// Parses and validates the JSON text of a header in a file of `file_size` bytes. Refused beyond what the official
// library refuses: duplicate tensor names and duplicate fields, which it silently lets win or lose.
// Errors: kInvalidHeader naming `file` and the tensor; every defect of the header is reported.
Result<Header> ParseHeader(std::string_view json, uint64_t file_size, std::string_view file);

// The bytes of a file up to its data: length, JSON in the order of `tensors`, spaces up to a multiple of 8.
// Errors: kInvalidHeader where the header would pass the cap.
Result<std::string> SerializeHeader(std::span<const TensorInfo* const> tensors, const Metadata& metadata,
                                    std::string_view file);
Result<std::string> SerializeHeader(std::span<const TensorInfo> tensors, const Metadata& metadata,
                                    std::string_view file);

// Fills a serialized header up with spaces to `bytes`, length field included, and states the new length. Requires
// header->size() <= bytes <= kLengthBytes + kMaxHeaderBytes.
void PadHeader(uint64_t bytes, std::string* header);

}  // namespace quantport
