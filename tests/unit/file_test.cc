#include "io/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "io/local_storage.h"
#include "support/checkpoint_builder.h"
#include "unit/error_lines.h"

namespace quantport {
namespace {

namespace fs = std::filesystem;

using test::ErrorLines;
using test::ReadFile;
using test::TempDir;
using test::WriteFile;
using testing::ElementsAre;

TEST(FileTest, ReadsATextWhole) {
  const TempDir dir;
  std::string text("a\0b\n", 4);
  text.append(100'000, 'x');
  WriteFile(dir / "f", text);
  const auto read = ReadTextFile(dir / "f", text.size());
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(*read, text);
}

TEST(FileTest, RefusesATextAboveTheLimitBeforeReadingIt) {
  const TempDir dir;
  WriteFile(dir / "f", "");
  fs::resize_file(dir / "f", 1ull << 40);
  EXPECT_THAT(ErrorLines(ReadTextFile(dir / "f", 100)),
              ElementsAre("IoError the file has 1099511627776 bytes, more than the 100 that such a file can need"));
}

TEST(FileTest, ReadsAtAnOffsetAndNoticesTheEnd) {
  const TempDir dir;
  WriteFile(dir / "f", "0123456789");
  const auto file = File::OpenForReading(dir / "f");
  ASSERT_TRUE(file.ok());
  std::array<std::byte, 4> bytes = {};
  ASSERT_TRUE(file->ReadAt(bytes, 3).ok());
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes.data()), 4), "3456");
  EXPECT_THAT(ErrorLines(file->ReadAt(bytes, 8)), ElementsAre("IoError the file ends at byte 10, 2 bytes too early"));
  EXPECT_FALSE(file->ReadAt(bytes, UINT64_MAX).ok());
}

TEST(FileTest, OpensRegularFilesOnly) {
  const TempDir dir;
  ASSERT_EQ(::mkfifo((dir / "fifo").c_str(), 0600), 0);
  for (const fs::path& path : {dir / "fifo", dir.path(), fs::path("/dev/zero")}) {
    EXPECT_THAT(ErrorLines(File::OpenForReading(path)), ElementsAre("IoError not a regular file")) << path;
  }
}

TEST(FileTest, SaysWhyAFileCannotBeOpened) {
  const TempDir dir;
  const auto file = File::OpenForReading(dir / "nothing\nhere");
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.errors()[0].ToString(),
            dir.path().string() + "/nothing\\x0ahere: can't open: No such file or directory");
}

}  // namespace
}  // namespace quantport
