#include "exec/transfer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "io/buffer.h"
#include "io/clone.h"
#include "io/local_storage.h"
#include "support/checkpoint_builder.h"
#include "unit/error_lines.h"

namespace quantport {
namespace {

namespace fs = std::filesystem;

using test::ErrorLines;
using test::FillBytes;
using test::ReadFile;
using test::TempDir;
using test::WriteFile;
using testing::ElementsAre;

// A file of which the page cache holds nothing, as far as its file system goes without it.
File Cold(const fs::path& path) {
  auto file = File::OpenForReading(path);
  EXPECT_TRUE(file.ok());
  EXPECT_TRUE(file->Sync().ok());
  file->AdviseDontNeed(0, 0);
  return std::move(*file);
}

std::unique_ptr<const ByteSource> ColdSource(const fs::path& path) {
  (void)Cold(path);
  return std::move(*LocalStorage().OpenFile(path));
}

std::string Text(std::span<const std::byte> bytes) {
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

TEST(IoBufferTest, BeginsOnAPageAndIsZero) {
  for (const size_t bytes : {size_t{1}, size_t{4096}, size_t{5 << 20}}) {
    const IoBuffer buffer(bytes);
    EXPECT_EQ(buffer.bytes().size(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.bytes().data()) % kDirectBlock, 0u);
    EXPECT_TRUE(
        std::all_of(buffer.bytes().begin(), buffer.bytes().end(), [](std::byte b) { return b == std::byte{}; }));
  }
}

TEST(CachedBytesTest, CountsWhatTheCacheHolds) {
  const TempDir dir;
  WriteFile(dir / "f", std::string(64 * 4096, 'x'));
  File file = Cold(dir / "f");
  if (file.CachedBytes(0, 64 * 4096) != 0) GTEST_SKIP() << "a file system without a disk";
  std::vector<std::byte> bytes(4096);
  ASSERT_TRUE(file.ReadAt(bytes, 8 * 4096).ok());
  EXPECT_EQ(file.CachedBytes(8 * 4096, 4096), 4096u);
  EXPECT_GE(file.CachedBytes(0, 64 * 4096), 4096u);
}

TEST(DirectReaderTest, ReadsUpToTheEndOfAFileAndNoticesIt) {
  const TempDir dir;
  const std::string bytes = FillBytes("f", 3 * 4096 + 100);
  WriteFile(dir / "f", bytes);
  File file = Cold(dir / "f");
  DirectReader direct(&file);
  const IoBuffer buffer(3 * 4096);
  ASSERT_TRUE(direct.ReadBlocks(buffer.bytes(), 4096, 2 * 4096 + 100).ok());
  EXPECT_TRUE(Text(buffer.bytes().first(2 * 4096 + 100)) == bytes.substr(4096));
  EXPECT_THAT(ErrorLines(direct.ReadBlocks(buffer.bytes(), 4096, 2 * 4096 + 101)),
              ElementsAre("IoError the file ends at byte 12388, 1 bytes too early"));
}

TEST(DirectReaderTest, GoesThroughThePageCacheWhereItIsRefused) {
  const TempDir dir;
  const std::string bytes = FillBytes("f", 4 * 4096);
  WriteFile(dir / "f", bytes);
  File file = Cold(dir / "f");
  DirectReader read(&file);
  const IoBuffer buffer(4 * 4096);
  // An address inside a sector is what every disk refuses.
  const auto odd = buffer.bytes().subspan(1, 2 * 4096);
  ASSERT_TRUE(read.ReadBlocks(odd, 4096, odd.size()).ok());
  EXPECT_TRUE(Text(odd) == bytes.substr(4096, 2 * 4096));
  auto target = File::Create(dir / "out");
  ASSERT_TRUE(target.ok());
  DirectWriter write(&*target);
  ASSERT_TRUE(write.WriteBlocks(odd, 0).ok());
  EXPECT_TRUE(ReadFile(dir / "out") == bytes.substr(4096, 2 * 4096));
}

TEST(DirectReaderTest, IsNotUsableWhereAnotherFileTookThePath) {
  const TempDir dir;
  WriteFile(dir / "f", std::string(4096, 'a'));
  auto file = File::OpenForReading(dir / "f");
  ASSERT_TRUE(file.ok());
  WriteFile(dir / "g", std::string(4096, 'b'));
  fs::rename(dir / "g", dir / "f");
  DirectReader direct(&*file);
  const IoBuffer buffer(4096);
  ASSERT_TRUE(direct.ReadBlocks(buffer.bytes(), 0, 4096).ok());
  EXPECT_TRUE(Text(buffer.bytes()) == std::string(4096, 'a'));
  EXPECT_FALSE(direct.usable());
}

TEST(SourceFileTest, PutsAnyRangeAnywhereAndKeepsWhatStandsInFrontOfIt) {
  const TempDir dir;
  constexpr uint64_t kBytes = 1'000'003;
  const std::string bytes = FillBytes("f", kBytes);
  WriteFile(dir / "f", bytes);
  std::mt19937_64 random(1);
  const IoBuffer buffer(kBytes + 10'000 + kReadSlack);
  for (int i = 0; i < 300; ++i) {
    const auto file = ColdSource(dir / "f");
    SourceFile source(file.get());
    const uint64_t from = random() % 500'000;
    const uint64_t count = i % 3 == 0 ? kBytes - from : random() % (kBytes - from) + 1;
    // Every second one lies alike within its blocks.
    const uint64_t at = i % 2 == 0 ? from % kDirectBlock + kDirectBlock * (random() % 2) : random() % 10'000;
    std::memset(buffer.bytes().data(), '#', buffer.bytes().size());
    ASSERT_TRUE(source.Read(buffer.bytes(), at, count, from).ok());
    ASSERT_TRUE(Text(buffer.bytes().first(at)) == std::string(at, '#')) << i;
    ASSERT_TRUE(Text(buffer.bytes().subspan(at, count)) == bytes.substr(from, count)) << i;
  }
}

TEST(SourceFileTest, NoticesTheEndOfAColdFile) {
  const TempDir dir;
  WriteFile(dir / "f", std::string(300'000, 'x'));
  const auto file = ColdSource(dir / "f");
  SourceFile source(file.get());
  const IoBuffer buffer(400'000 + kReadSlack);
  EXPECT_THAT(ErrorLines(source.Read(buffer.bytes(), 3, 300'000, 1)),
              ElementsAre("IoError the file ends at byte 300000, 1 bytes too early"));
}

TEST(OutputFileTest, WritesOddSizesAndKeepsThePageCacheFree) {
  const TempDir dir;
  const auto folder = OpenOutputFolder(dir.path());
  const IoBuffer buffer(5 * 4096);
  for (const size_t size : {size_t{1}, size_t{4095}, size_t{4096}, size_t{3 * 4096 + 7}, size_t{5 * 4096}}) {
    const std::string name = std::to_string(size);
    auto file = folder->Create(name);
    ASSERT_TRUE(file.ok());
    std::string bytes = FillBytes(name, size);
    std::memcpy(buffer.bytes().data(), bytes.data(), size);
    const auto cached = (*file)->WriteLarge(buffer.bytes().first(size), 8192);
    ASSERT_TRUE(cached.ok());
    Writeback writeback;
    ASSERT_TRUE((*cached ? writeback.Add(*file, 8192, size) : Status()).ok());
    ASSERT_TRUE(writeback.Finish().ok());
    EXPECT_TRUE(ReadFile(dir / name) == std::string(8192, '\0') + bytes);
  }
}

// ---- clone ------------------------------------------------------------------------------------------------------

std::unique_ptr<const ByteSource> Source(const fs::path& path) { return std::move(*LocalStorage().OpenFile(path)); }

TEST(CanCloneTest, IsFalseForAnEmptySourceAndAcrossFileSystems) {
  const TempDir dir;
  WriteFile(dir / "empty", "");
  WriteFile(dir / "f", std::string(10'000, 'x'));
  const auto empty = CanClone(*Source(dir / "empty"), dir.path());
  ASSERT_TRUE(empty.ok());
  EXPECT_FALSE(*empty);
  if (!fs::is_directory("/dev/shm")) GTEST_SKIP() << "no second file system";
  const auto across = CanClone(*Source(dir / "f"), "/dev/shm");
  ASSERT_TRUE(across.ok());
  EXPECT_FALSE(*across);
}

TEST(CanCloneTest, LeavesNothingBehindAndNamesWhatIsMissing) {
  const TempDir dir;
  fs::create_directory(dir / "out");
  WriteFile(dir / "f", std::string(10'000, 'x'));
  EXPECT_TRUE(CanClone(*Source(dir / "f"), dir / "out").ok());
  EXPECT_TRUE(fs::is_empty(dir / "out"));
  EXPECT_THAT(ErrorLines(CanClone(*Source(dir / "f"), dir / "none")),
              ElementsAre("IoError can't create a file in: No such file or directory"));
}

}  // namespace
}  // namespace quantport
