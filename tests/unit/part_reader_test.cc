// Numbers of stored parts are taken for what their type says they are.
#include "codec/part_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

namespace quantport {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

template <typename T>
std::vector<uint8_t> BytesOf(const T& value) {
  std::vector<uint8_t> bytes(sizeof value);
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

TEST(PartReaderTest, TakesNumbersForWhatTheirTypeSays) {
  const std::vector<std::pair<DType, std::vector<uint8_t>>> same = {
      {DType::kF64, BytesOf(0.0078125)},          {DType::kF32, BytesOf(0.0078125f)},
      {DType::kBF16, BytesOf(uint16_t{0x3C00})},  {DType::kF16, BytesOf(uint16_t{0x2000})},
      {DType::kF8E4M3, BytesOf(uint8_t{0x04})},   {DType::kF8E5M2, BytesOf(uint8_t{0x20})},
      {DType::kF8E8M0, BytesOf(uint8_t{127 - 7})}};
  for (const auto& [dtype, bytes] : same) {
    const auto numbers = NumbersOf(dtype, bytes);
    ASSERT_TRUE(numbers.ok()) << DTypeName(dtype);
    EXPECT_THAT(*numbers, ElementsAre(0x1p-7f)) << DTypeName(dtype);
  }
}

TEST(PartReaderTest, RefusesNumbersOfTypesThatAreNoScales) {
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto dtype = static_cast<DType>(i);
    const auto numbers = NumbersOf(dtype, std::vector<uint8_t>(8));
    EXPECT_EQ(numbers.ok(), IsScaleType(dtype)) << DTypeName(dtype);
    if (numbers.ok()) continue;
    EXPECT_THAT(numbers.errors()[0].message, HasSubstr(std::string(DTypeName(dtype))));
  }
  EXPECT_FALSE(IsScaleType(DType::kI32));
  EXPECT_FALSE(IsScaleType(DType::kU8));
  EXPECT_TRUE(IsScaleType(DType::kF64));
}

}  // namespace
}  // namespace quantport
