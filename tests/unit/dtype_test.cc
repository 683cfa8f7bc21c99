#include "quantport/dtype.h"

#include <gtest/gtest.h>

namespace quantport {
namespace {

TEST(DTypeTest, EveryNameParsesBackToItself) {
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto dtype = static_cast<DType>(i);
    EXPECT_EQ(ParseDType(DTypeName(dtype)), dtype) << DTypeName(dtype);
  }
}

TEST(DTypeTest, SubByteTypesHaveTheirWidths) {
  EXPECT_EQ(DTypeBits(DType::kF4), 4);
  EXPECT_EQ(DTypeBits(DType::kF6E2M3), 6);
  EXPECT_EQ(DTypeBits(DType::kF6E3M2), 6);
}

TEST(DTypeTest, UnknownNamesAreRefused) {
  EXPECT_FALSE(ParseDType("F7").has_value());
  EXPECT_FALSE(ParseDType("f32").has_value());
  EXPECT_FALSE(ParseDType("").has_value());
}

}  // namespace
}  // namespace quantport
