// Stored bytes are read within their tensor, and numbers as what the tensor says they are.
#include "exec/stored_bytes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>

#include "io/local_storage.h"
#include "plan/stored_source.h"
#include "support/checkpoint_builder.h"

namespace quantport {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// One file: a tensor of 12 bytes, 0 to 11, and what follows it.
class StoredBytesTest : public ::testing::Test {
 protected:
  StoredBytesTest() {
    std::string bytes = "head";
    for (char byte = 0; byte < 12; ++byte) bytes += byte;
    test::WriteFile(folder_ / "f", bytes + "of another tensor");
    std::vector<std::unique_ptr<const ByteSource>> files;
    files.push_back(std::move(*LocalStorage().OpenFile(folder_ / "f")));
    sources_ = Sources(std::move(files));
    plan_.tensors = {{"m.weight_scale", 0, 4, 12, DType::kU8}};
  }

  test::TempDir folder_;
  Plan plan_;
  Sources sources_;
  StoredBytes stored() const { return {plan_, sources_}; }
};

TEST_F(StoredBytesTest, ReadsUpToTheTensorsEndAndNoFurther) {
  const auto last = stored().Read(0, 9, 3);
  ASSERT_TRUE(last.ok());
  EXPECT_THAT(*last, ElementsAre(9, 10, 11));
  for (const auto& [begin, bytes] : {std::pair<uint64_t, uint64_t>{9, 4}, {12, 1}, {0, 13}, {UINT64_MAX, 2}}) {
    const auto read = stored().Read(0, begin, bytes);
    ASSERT_FALSE(read.ok()) << begin << " " << bytes;
    EXPECT_EQ(read.errors()[0].kind, ErrorKind::kQuantConversionUnsupported);
    EXPECT_EQ(read.errors()[0].tensor, "m.weight_scale");
    EXPECT_THAT(read.errors()[0].message, HasSubstr("it has 12"));
  }
}

TEST_F(StoredBytesTest, ReadsColumnsUpToTheLastRowsEnd) {
  const auto columns = stored().ReadColumns(0, 3, 4, 2, 2);
  ASSERT_TRUE(columns.ok());
  EXPECT_THAT(*columns, ElementsAre(2, 3, 6, 7, 10, 11));
  EXPECT_FALSE(stored().ReadColumns(0, 3, 4, 3, 2).ok());
  EXPECT_FALSE(stored().ReadColumns(0, 4, 4, 0, 1).ok());
  EXPECT_FALSE(stored().ReadColumns(0, 4, 4, 0, 4).ok());
  const auto none = stored().ReadColumns(0, 0, 4, 100, 2);
  ASSERT_TRUE(none.ok());
  EXPECT_TRUE(none->empty());
}

std::vector<uint8_t> BytesOf(const auto& value) {
  std::vector<uint8_t> bytes(sizeof value);
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

TEST_F(StoredBytesTest, TakesNumbersForWhatTheTensorSaysTheyAre) {
  const std::vector<std::pair<DType, std::vector<uint8_t>>> halves = {
      {DType::kF64, BytesOf(0.0078125)},           {DType::kF32, BytesOf(0.0078125f)},
      {DType::kBF16, BytesOf(uint16_t{0x3C00})},   {DType::kF16, BytesOf(uint16_t{0x2000})},
      {DType::kF8E4M3, BytesOf(uint8_t{0x04})},    {DType::kF8E5M2, BytesOf(uint8_t{0x20})},
      {DType::kF8E8M0, BytesOf(uint8_t{127 - 7})},
  };
  for (const auto& [dtype, bytes] : halves) {
    plan_.tensors[0].dtype = dtype;
    const auto numbers = stored().Numbers(0, bytes);
    ASSERT_TRUE(numbers.ok()) << DTypeName(dtype);
    EXPECT_THAT(*numbers, ElementsAre(0x1p-7f)) << DTypeName(dtype);
  }
}

TEST_F(StoredBytesTest, RefusesNumbersOfTypesThatAreNoScales) {
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto dtype = static_cast<DType>(i);
    plan_.tensors[0].dtype = dtype;
    const auto numbers = stored().Numbers(0, std::vector<uint8_t>(8));
    EXPECT_EQ(numbers.ok(), IsScaleType(dtype)) << DTypeName(dtype);
    if (numbers.ok()) continue;
    EXPECT_EQ(numbers.errors()[0].tensor, "m.weight_scale");
    EXPECT_THAT(numbers.errors()[0].message, HasSubstr(std::string(DTypeName(dtype))));
  }
  EXPECT_FALSE(IsScaleType(DType::kI32));
  EXPECT_FALSE(IsScaleType(DType::kU8));
  EXPECT_TRUE(IsScaleType(DType::kF64));
}

}  // namespace
}  // namespace quantport
