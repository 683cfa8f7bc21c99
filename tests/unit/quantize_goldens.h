// Weights, and what ModelOpt made of them: the files of tests/golden/quantize.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "quantize/element.h"
#include "safetensors/header.h"
#include "support/checkpoint_builder.h"
#include "support/source_dir.h"

namespace quantport::test {

struct Golden {
  DType dtype;
  std::vector<uint64_t> shape;
  std::vector<uint8_t> bytes;

  std::vector<float> Floats() const {
    std::vector<float> values(bytes.size() / (dtype == DType::kF32 ? 4 : 2));
    const quantize::Row row = {bytes.data(), Type(), values.size()};
    for (size_t i = 0; i < values.size(); ++i) values[i] = quantize::LoadElement(row, i);
    return values;
  }
  quantize::ElementType Type() const {
    return dtype == DType::kF32   ? quantize::ElementType::kF32
           : dtype == DType::kF16 ? quantize::ElementType::kF16
                                  : quantize::ElementType::kBF16;
  }
  quantize::Matrix AsMatrix() const { return {bytes, Type(), shape[0], shape[1]}; }
};

inline std::map<std::string, Golden> ReadGoldens(const std::string& name) {
  const std::string file = ReadFile(test::SourceDir() + "/tests/golden/quantize/" + name);
  const auto length = ParseHeaderLength(std::as_bytes(std::span(file).first(kLengthBytes)), file.size(), name);
  EXPECT_TRUE(length.ok());
  const auto header = ParseHeader(std::string_view(file).substr(kLengthBytes, *length), file.size(), name);
  EXPECT_TRUE(header.ok());
  std::map<std::string, Golden> goldens;
  for (const TensorInfo& tensor : header->tensors) {
    const auto* data = reinterpret_cast<const uint8_t*>(file.data()) + header->data_start;
    goldens[tensor.name] = {tensor.dtype, tensor.shape, {data + tensor.begin, data + tensor.end}};
  }
  return goldens;
}

// The first index at which two byte strings differ, for a message that stays short; their size where they don't.
inline size_t FirstDifference(std::span<const uint8_t> a, std::span<const uint8_t> b) {
  size_t i = 0;
  while (i < a.size() && i < b.size() && a[i] == b[i]) ++i;
  return i;
}

}  // namespace quantport::test

#define EXPECT_SAME_BYTES(actual, golden)                                                                      \
  do {                                                                                                         \
    ASSERT_EQ((actual).size(), (golden).size());                                                               \
    const size_t at = ::quantport::test::FirstDifference((actual), (golden));                                  \
    EXPECT_EQ(at, (golden).size()) << std::hex << "0x" << int((actual)[at]) << " for 0x" << int((golden)[at]); \
  } while (false)
