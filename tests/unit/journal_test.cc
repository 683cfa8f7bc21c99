// Journals: what is written comes back, and what is damaged or hostile is an error that names the file.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <ostream>

#include "base/json.h"
#include "journal/journal_json.h"
#include "unit/changed_folder.h"
#include "unit/error_lines.h"

namespace quantport {
namespace {

namespace fs = std::filesystem;

using test::BytesOf;
using test::ErrorLines;
using test::ReadFile;
using test::TempDir;
using test::WriteFile;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

Journal SmallJournal() {
  Journal journal;
  journal.shards.push_back({"a.safetensors",
                            100000,
                            104196,
                            4096,
                            {8, 600},
                            {608, 4696},
                            {{0, 1 << 20, 65536}, {65536, 1 << 19, 36864}},
                            {{5000, {5304, 64}, {5368, 64}}, {104096, {}, {5432, 100}}}});
  journal.shards.push_back({"ä.safetensors", 700, 700, 0, {8, 600}, {608, 600}, {}, {}});
  journal.replacements = {{"config.json", true, true}, {"new", false, true}, {"gone", true, false}};
  return journal;
}

constexpr uint64_t kPiecesEnd = 6000;

class Folder {
 public:
  Folder() { fs::create_directory(dir_ / std::string(kStagingName)); }

  const fs::path& path() const { return dir_.path(); }
  fs::path file() const { return path() / kJournalName; }

  JournalWriter Writer() {
    auto writer = JournalWriter::Create(output_.get());
    EXPECT_TRUE(writer.ok());
    return std::move(*writer);
  }

  // The errors of opening it, each as "Kind message", after it was seen that they name the file.
  std::vector<std::string> OpenErrors() const {
    const auto reader = JournalReader::Open(path());
    if (reader) return {};
    for (const Error& error : reader.errors()) EXPECT_EQ(error.file, file().string());
    return ErrorLines(reader.errors());
  }

 private:
  TempDir dir_;
  const std::unique_ptr<OutputFolder> output_ = OpenOutputFolder(dir_.path());
};

TEST(JournalTest, ComesBackAsItWasWritten) {
  Folder folder;
  JournalWriter writer = folder.Writer();
  ASSERT_TRUE(writer.Add(BytesOf(std::string(7000, 'x'))).ok());
  const auto piece = writer.Add(BytesOf("a piece"));
  ASSERT_TRUE(piece.ok());
  ASSERT_TRUE(writer.Publish(SmallJournal()).ok());
  const auto reader = JournalReader::Open(folder.path());
  ASSERT_TRUE(reader.ok());
  EXPECT_EQ(JournalJson(reader->journal()), JournalJson(SmallJournal()));
  const ShardChange& shard = reader->journal().shards[0];
  EXPECT_EQ(shard.name, "a.safetensors");
  EXPECT_EQ(shard.extents[1].physical, 1u << 19);
  EXPECT_EQ(shard.patches[0].old_bytes.offset, 5304u);
  EXPECT_EQ(shard.patches[1].new_bytes.bytes, 100u);
  EXPECT_TRUE(reader->journal().replacements[2].had_old);
  EXPECT_FALSE(reader->journal().replacements[2].has_new);
  const auto bytes = reader->Read(*piece);
  ASSERT_TRUE(bytes.ok());
  EXPECT_EQ(*bytes, "a piece");
}

TEST(JournalTest, HasItsNameOnlyOncePublished) {
  Folder folder;
  JournalWriter writer = folder.Writer();
  EXPECT_FALSE(fs::exists(folder.file()));
  ASSERT_TRUE(writer.Publish({}).ok());
  EXPECT_TRUE(fs::exists(folder.file()));
}

// A change that no recovery could read would leave a folder that no command opens.
TEST(JournalTest, GetsNoNameWhereItCouldNotBeReadBack) {
  Folder folder;
  JournalWriter writer = folder.Writer();
  Journal journal;
  journal.replacements.push_back({".quantport-odd.safetensors", true, true});
  EXPECT_THAT(ErrorLines(writer.Publish(journal)), ElementsAre(HasSubstr("what no change of this program would")));
  EXPECT_FALSE(fs::exists(folder.file()));
}

TEST(JournalTest, ACutFileIsNoJournal) {
  Folder folder;
  JournalWriter writer = folder.Writer();
  ASSERT_TRUE(writer.Add(BytesOf("pieces")).ok());
  ASSERT_TRUE(writer.Publish({}).ok());
  const std::string whole = ReadFile(folder.file());
  for (size_t bytes = 0; bytes < whole.size(); ++bytes) {
    WriteFile(folder.file(), whole.substr(0, bytes));
    EXPECT_THAT(folder.OpenErrors(), ElementsAre(HasSubstr("UnfinishedChange"))) << bytes;
  }
  WriteFile(folder.file(), whole + ' ');
  EXPECT_THAT(folder.OpenErrors(), ElementsAre(HasSubstr("not a whole journal")));
  WriteFile(folder.file(), whole);
  EXPECT_THAT(folder.OpenErrors(), IsEmpty());
}

TEST(JournalTest, AnyFlippedBitShows) {
  Folder folder;
  JournalWriter writer = folder.Writer();
  ASSERT_TRUE(writer.Add(BytesOf(std::string(kPiecesEnd, 'p'))).ok());
  ASSERT_TRUE(writer.Publish(SmallJournal()).ok());
  const std::string whole = ReadFile(folder.file());
  for (size_t byte = 0; byte < whole.size(); byte += byte < kPiecesEnd ? 101 : 1) {
    std::string damaged = whole;
    damaged[byte] = static_cast<char>(damaged[byte] ^ 1 << byte % 8);
    WriteFile(folder.file(), damaged);
    EXPECT_THAT(folder.OpenErrors(), ElementsAre(HasSubstr("not a whole journal"))) << byte;
  }
}

// ---- what it says ------------------------------------------------------------------------------------------------

std::vector<std::string> ParseErrors(const std::string& json) {
  const auto journal = ParseJournal(json, kPiecesEnd, "folder/journal");
  if (journal) return {};
  for (const Error& error : journal.errors()) EXPECT_EQ(error.file, "folder/journal");
  return ErrorLines(journal.errors());
}

struct Wrong {
  std::string why;
  std::string at;     // JSON pointer
  std::string value;  // JSON
};

void PrintTo(const Wrong& wrong, std::ostream* out) { *out << wrong.at << " = " << wrong.value; }

class WrongJournalTest : public testing::TestWithParam<Wrong> {};

const std::string kHuge = "18446744073709551615";

INSTANTIATE_TEST_SUITE_P(
    All, WrongJournalTest,
    testing::Values(
        Wrong{"no object", "", "[]"}, Wrong{"null", "", "null"}, Wrong{"no list", "/shards", "{}"},
        Wrong{"no list of replacements", "/replacements", "1"}, Wrong{"a shard that is none", "/shards/0", "[]"},
        Wrong{"an empty name", "/shards/0/name", R"("")"}, Wrong{"the folder", "/shards/0/name", R"(".")"},
        Wrong{"the folder above", "/shards/0/name", R"("..")"}, Wrong{"a path", "/shards/0/name", R"("a/b")"},
        Wrong{"an absolute path", "/shards/0/name", R"("/etc/passwd")"},
        Wrong{"a NUL", "/shards/0/name", R"("a\u0000b")"},
        Wrong{"the journal itself", "/shards/0/name", R"(".quantport-journal")"},
        Wrong{"no text", "/shards/0/name", "1"}, Wrong{"a path that is replaced", "/replacements/0/name", R"("../a")"},
        Wrong{"the staging folder", "/replacements/0/name", R"(".quantport-staging")"},
        Wrong{"a number for a flag", "/replacements/0/had_old", "1"},
        Wrong{"a missing flag", "/replacements/0/has_new", "null"},
        Wrong{"a negative size", "/shards/0/old_size", "-1"}, Wrong{"a fraction", "/shards/0/old_size", "1.5"},
        Wrong{"a smaller new size", "/shards/0/new_size", "100000"},
        Wrong{"sizes that overflow", "/shards/0/old_size", kHuge},
        Wrong{"an insertion that overflows", "/shards/0/inserted", kHuge},
        Wrong{"a header that does not grow by what is inserted", "/shards/0/inserted", "4095"},
        Wrong{"an old header behind the file", "/shards/1/old_size", "599"},
        Wrong{"a header without its length", "/shards/1/old_header", "[8, 7]"},
        Wrong{"a piece outside", "/shards/0/old_header", "[5401, 600]"},
        Wrong{"a piece that overflows", "/shards/0/old_header", "[18446744073709551615, 600]"},
        Wrong{"a piece of one number", "/shards/0/new_header", "[8]"},
        Wrong{"a piece of three", "/shards/0/new_header", "[608, 4696, 0]"},
        Wrong{"extents that are none", "/shards/0/extents", "[[0, 1]]"},
        Wrong{"an extent that overflows", "/shards/0/extents", "[[18446744073709551615, 0, 1]]"},
        Wrong{"a place that overflows", "/shards/0/extents", "[[0, 18446744073709551615, 1]]"},
        Wrong{"extents that overlap", "/shards/0/extents", "[[0, 0, 4096], [4095, 8192, 4096]]"},
        Wrong{"extents in one place", "/shards/0/extents", "[[0, 4096, 4096], [4096, 4096, 4096]]"},
        Wrong{"a patch that is none", "/shards/0/patches", "[[1, 2]]"},
        Wrong{"a patch of the header", "/shards/0/patches/0/0", "4695"},
        Wrong{"a patch behind the end", "/shards/0/patches/1/0", "104097"},
        Wrong{"a patch that overflows", "/shards/0/patches/1/0", kHuge},
        Wrong{"old bytes of another length", "/shards/0/patches/0/1", "[5304, 63]"}),
    [](const testing::TestParamInfo<Wrong>& wrong) {
      std::string name = wrong.param.why;
      std::replace(name.begin(), name.end(), ' ', '_');
      return name;
    });

TEST_P(WrongJournalTest, IsAnErrorThatNamesTheFile) {
  auto json = ParseJson(JournalJson(SmallJournal()), "small", ErrorKind::kIo);
  ASSERT_TRUE(json.ok());
  ASSERT_THAT(ParseErrors(json->dump()), IsEmpty());
  (*json)[Json::json_pointer(GetParam().at)] = Json::parse(GetParam().value);
  EXPECT_THAT(ParseErrors(json->dump()),
              ElementsAre(HasSubstr("UnfinishedChangeError the journal says what no change of this program would")));
}

TEST(JournalTest, NeedsEveryMember) {
  const auto whole = ParseJson(JournalJson(SmallJournal()), "small", ErrorKind::kIo);
  ASSERT_TRUE(whole.ok());
  for (const char* const object : {"", "/shards/0", "/replacements/0"}) {
    const Json::json_pointer at(object);
    for (const auto& [key, value] : (*whole)[at].items()) {
      Json json = *whole;
      json[at].erase(key);
      EXPECT_THAT(ParseErrors(json.dump()), ElementsAre(HasSubstr("says what no change"))) << object << " " << key;
    }
  }
}

TEST(JournalTest, NoPatchIsLargerThanMemoryIsPlannedFor) {
  Journal journal = SmallJournal();
  ShardChange& change = journal.shards[1];
  change.new_size = change.old_size + kMaxPatchBytes + 1;
  change.patches = {{change.old_size, {}, {0, kMaxPatchBytes}}};
  EXPECT_TRUE(ParseJournal(JournalJson(journal), 1 << 30, "journal").ok());
  ++change.patches[0].new_bytes.bytes;
  EXPECT_FALSE(ParseJournal(JournalJson(journal), 1 << 30, "journal").ok());
}

TEST(JournalTest, NoHeaderIsLongerThanTheFormatAllows) {
  Journal journal = SmallJournal();
  ShardChange& change = journal.shards[1];
  change.old_size = change.new_size = 200'000'000;
  change.old_header = change.new_header = {8, 100'000'008};
  EXPECT_TRUE(ParseJournal(JournalJson(journal), 1 << 30, "journal").ok());
  change.old_header = change.new_header = {8, 100'000'009};
  EXPECT_FALSE(ParseJournal(JournalJson(journal), 1 << 30, "journal").ok());
}

TEST(JournalTest, TextThatIsNoJsonIsAnError) {
  EXPECT_THAT(ParseErrors("{"), ElementsAre(HasSubstr("invalid JSON")));
  EXPECT_THAT(ParseErrors(std::string(1000, '[')), ElementsAre(HasSubstr("UnfinishedChange")));
}

}  // namespace
}  // namespace quantport
