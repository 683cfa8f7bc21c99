// Stored bytes are read within their tensor.
#include "exec/stored_bytes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

#include "io/local_storage.h"
#include "support/checkpoint_builder.h"

namespace quantport {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const CodedPart kScale = {Role::kScale, 0, DType::kU8, {12}, 12};

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
  const auto last = stored().Read(kScale, 9, 3);
  ASSERT_TRUE(last.ok());
  EXPECT_THAT(*last, ElementsAre(9, 10, 11));
  for (const auto& [begin, bytes] : {std::pair<uint64_t, uint64_t>{9, 4}, {12, 1}, {0, 13}, {UINT64_MAX, 2}}) {
    const auto read = stored().Read(kScale, begin, bytes);
    ASSERT_FALSE(read.ok()) << begin << " " << bytes;
    EXPECT_EQ(read.errors()[0].kind, ErrorKind::kQuantConversionUnsupported);
    EXPECT_EQ(read.errors()[0].tensor, "m.weight_scale");
    EXPECT_THAT(read.errors()[0].message, HasSubstr("it has 12"));
  }
}

TEST_F(StoredBytesTest, ReadsColumnsUpToTheLastRowsEnd) {
  const auto columns = stored().ReadColumns(kScale, 3, 4, 2, 2);
  ASSERT_TRUE(columns.ok());
  EXPECT_THAT(*columns, ElementsAre(2, 3, 6, 7, 10, 11));
  EXPECT_FALSE(stored().ReadColumns(kScale, 3, 4, 3, 2).ok());
  EXPECT_FALSE(stored().ReadColumns(kScale, 4, 4, 0, 1).ok());
  EXPECT_FALSE(stored().ReadColumns(kScale, 4, 4, 0, 4).ok());
  const auto none = stored().ReadColumns(kScale, 0, 4, 100, 2);
  ASSERT_TRUE(none.ok());
  EXPECT_TRUE(none->empty());
}

}  // namespace
}  // namespace quantport
