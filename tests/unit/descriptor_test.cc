#include "io/descriptor.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <thread>

#include "io/file.h"
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

constexpr size_t kFiles = 100;
constexpr size_t kLimit = 40;

size_t OpenNow() {
  const fs::directory_iterator entries("/proc/self/fd");
  return static_cast<size_t>(std::distance(begin(entries), end(entries)));
}

// The process may have few files open, of which the test's own are some.
class DescriptorTest : public testing::Test {
 protected:
  DescriptorTest() {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    const rlimit few = {OpenNow() + kLimit, before_.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &few);
  }
  ~DescriptorTest() override { ::setrlimit(RLIMIT_NOFILE, &before_); }

  // Opens so many others that those opened before are closed.
  void OpenOthers() {
    for (size_t i = 0; i < kLimit; ++i) {
      WriteFile(dir_ / fmt::format("other{}", i), "");
      auto other = File::OpenForReading(dir_ / fmt::format("other{}", i));
      ASSERT_TRUE(other.ok());
      others_.push_back(std::move(*other));
    }
  }

  std::string First(const File& file) {
    std::string text(1, '\0');
    const auto status = file.ReadAt(std::as_writable_bytes(std::span(text)), 0);
    return status ? text : status.errors()[0].message;
  }

  const TempDir dir_;

 private:
  rlimit before_ = {};
  std::vector<File> others_;
};

TEST_F(DescriptorTest, MoreFilesAreInUseThanMayBeOpen) {
  std::vector<File> files;
  const size_t before = OpenNow();
  for (size_t i = 0; i < kFiles; ++i) {
    auto file = File::Create(dir_ / fmt::format("f{}", i));
    ASSERT_TRUE(file.ok()) << file.errors()[0].ToString();
    files.push_back(std::move(*file));
  }
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = t; i < kFiles; i += 4) {
        const std::string text = fmt::format("{:04}", i);
        EXPECT_TRUE(files[i].WriteAt(std::as_bytes(std::span(text)), 0).ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LT(OpenNow(), before + kLimit);
  for (size_t i = 0; i < kFiles; ++i) {
    EXPECT_TRUE(files[i].Sync().ok());
    EXPECT_EQ(ReadFile(dir_ / fmt::format("f{}", i)), fmt::format("{:04}", i));
  }
  files.clear();
  EXPECT_EQ(OpenNow(), before);
}

// Others have them: a process that embeds the library, or folders that are listed.
TEST_F(DescriptorTest, OpensWhatItNeedsWhereOthersHaveTakenTheRest) {
  std::vector<File> files;
  for (size_t i = 0; i < kLimit / 4; ++i) {
    auto file = File::Create(dir_ / fmt::format("f{}", i));
    ASSERT_TRUE(file.ok());
    files.push_back(std::move(*file));
  }
  std::vector<int> taken;
  for (int fd = 0; (fd = ::open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0;) taken.push_back(fd);
  ASSERT_FALSE(taken.empty());
  EXPECT_TRUE(SyncDirectory(dir_.path()).ok());
  EXPECT_TRUE(File::Create(dir_ / "another").ok());
  for (const int fd : taken) ::close(fd);
}

TEST_F(DescriptorTest, OpensAgainByThePathAndNoticesAnotherFileThere) {
  WriteFile(dir_ / "same", "a");
  WriteFile(dir_ / "replaced", "a");
  const auto same = File::OpenForReading(dir_ / "same");
  const auto replaced = File::OpenForReading(dir_ / "replaced");
  ASSERT_TRUE(same.ok() && replaced.ok());
  OpenOthers();
  WriteFile(dir_ / "another", "b");
  fs::rename(dir_ / "another", dir_ / "replaced");
  EXPECT_EQ(First(*same), "a");
  EXPECT_EQ(First(*replaced), "another file has taken its place");
}

TEST_F(DescriptorTest, CreatesAFileOnce) {
  auto file = File::Create(dir_ / "f");
  ASSERT_TRUE(file.ok());
  OpenOthers();
  const std::string text = "x";
  EXPECT_TRUE(file->WriteAt(std::as_bytes(std::span(text)), 0).ok());
  EXPECT_EQ(ReadFile(dir_ / "f"), "x");
  EXPECT_THAT(ErrorLines(File::Create(dir_ / "f")), ElementsAre("IoError can't create: File exists"));
}

TEST_F(DescriptorTest, KeepsWhatIsOpenedForGoodAndWhatIsInUse) {
  auto folder = File::OpenFolder(dir_.path());
  WriteFile(dir_ / "f", "a");
  auto used = Descriptor::Open(dir_ / "f", O_RDONLY, "open");
  ASSERT_TRUE(folder.ok() && used.ok());
  auto use = (*used)->Use();
  ASSERT_TRUE(use.ok());
  int before = -1;
  ASSERT_TRUE(folder->Ask("look", [&](int fd) { return before = fd; }).ok());
  OpenOthers();
  struct stat info = {};
  EXPECT_EQ(::fstat((*use)->get(), &info), 0);
  EXPECT_EQ(info.st_size, 1);
  fs::remove_all(dir_ / "f");
  // The same descriptor, with which a lock goes.
  EXPECT_TRUE(folder->Ask("look", [&](int fd) { return fd == before ? 0 : -1; }).ok());
}

}  // namespace
}  // namespace quantport
