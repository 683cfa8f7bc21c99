// Data that stays where a shard has it: what is placed, what is refused and why, and that no byte depends on it.
#include "plan/placement.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "exec/output_bytes.h"
#include "io/local_storage.h"
#include "support/checkpoint_builder.h"

namespace quantport {
namespace {

using test::FillBytes;
using test::TempDir;
using test::WriteFile;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr uint64_t kBlock = 4096;

PlanOptions Options(uint64_t block_bytes, bool keep_header_room) {
  PlanOptions options;
  options.sharded = true;
  options.block_bytes = block_bytes;
  options.keep_header_room = keep_header_room;
  return options;
}

// Shards with bytes, and what is made of their tensors.
class Case {
 public:
  explicit Case(const std::vector<uint64_t>& data_starts = {1000}) {
    for (const uint64_t start : data_starts) {
      table.shards.push_back({fmt::format("s{}.safetensors", table.shards.size()), start, start, {}});
    }
  }

  // Tensors come shard by shard.
  Array Store(const std::string& name, DType dtype, const std::vector<uint64_t>& shape, uint32_t shard = 0) {
    Shard& in = table.shards[shard];
    const uint64_t begin = in.file_bytes - in.data_start;
    const uint64_t bytes = TensorBytes(dtype, shape).value();
    in.file_bytes += bytes;
    table.tensors.push_back({{name, dtype, shape, begin, begin + bytes}, shard});
    return WholeTensor(static_cast<uint32_t>(table.tensors.size() - 1), dtype, shape);
  }

  void Give(const std::string& name, const Array& array) {
    const uint32_t first = array.blocks.empty() ? kZeros : array.blocks[0].tensor;
    conversion.tensors.push_back({name, array, FormatId::kPlain, first == kZeros ? 0 : table.tensors[first].shard});
  }

  Plan Make(PlanOptions options, const std::filesystem::path& directory = "in") const {
    auto plan = MakePlan(conversion, table, directory, options);
    EXPECT_TRUE(plan.ok());
    return plan.ok() ? std::move(*plan) : Plan();
  }

  // The one file of a plan in place.
  PlannedFile InPlace() const { return Make(Options(kBlock, true)).files.at(0); }

  std::string Obstacle() const {
    const PlannedFile file = InPlace();
    EXPECT_FALSE(file.stays.has_value());
    return file.obstacle;
  }

  void WriteShards(const std::filesystem::path& directory) const {
    for (const Shard& shard : table.shards) WriteFile(directory / shard.name, FillBytes(shard.name, shard.file_bytes));
  }

  TensorTable table;
  Conversion conversion;
};

std::vector<std::string> Names(const PlannedFile& file) {
  std::vector<std::string> names;
  for (const PlannedTensor& tensor : file.tensors) names.push_back(tensor.info.name);
  return names;
}

MATCHER_P2(IsRange, begin, end, "") {
  return arg.begin == static_cast<uint64_t>(begin) && arg.end == static_cast<uint64_t>(end);
}

TEST(PlacementTest, RowsAndEntriesStayWhereTheyAre) {
  Case c;
  const Array fused = c.Store("qkv", DType::kBF16, {6, 8});
  const Array stacked = c.Store("experts", DType::kF8E4M3, {2, 3, 4});
  // Not in the order of their data.
  c.Give("expert 1", Select(stacked, 0, 1));
  c.Give("v", Slice(fused, 0, 4, 2));
  c.Give("q", Slice(fused, 0, 0, 2));
  c.Give("k", Slice(fused, 0, 2, 2));
  c.Give("expert 0", Select(stacked, 0, 0));
  const PlannedFile file = c.InPlace();
  EXPECT_EQ(file.obstacle, "");
  EXPECT_THAT(Names(file), ElementsAre("q", "k", "v", "expert 0", "expert 1"));
  ASSERT_TRUE(file.stays.has_value());
  EXPECT_EQ(file.stays->kept, 120u);
  EXPECT_EQ(file.stays->source_data_start, 1000u);
  EXPECT_THAT(file.stays->rewritten, IsEmpty());
  EXPECT_FALSE(file.stays->same_header);
  EXPECT_EQ(file.bytes, file.header.size() + 120);
}

TEST(PlacementTest, CopiesAndWhatIsNewAreAppendedWideElementsFirst) {
  Case c({1000, 1000});
  const Array byte = c.Store("byte", DType::kU8, {8});
  const Array scale = c.Store("scale", DType::kF32, {});
  const Array pad = c.Store("pad", DType::kBF16, {2});
  const Array foreign = c.Store("foreign", DType::kBF16, {2}, 1);
  c.Give("copy of byte", byte);
  c.conversion.tensors.back().name = "byte 0";
  c.Give("byte 1", byte);
  c.Give("scale 0", scale);
  c.Give("pad 0", pad);
  c.Give("pad 1", Slice(pad, 0, 1, 1));
  c.Give("scale 1", scale);
  c.Give("scale 2", scale);
  c.Give("stated", {DType::kI64, {1}, {}, std::vector<std::byte>(8)});
  c.Give("here", foreign);
  c.conversion.tensors.back().shard = 0;
  const PlannedFile file = c.InPlace();
  EXPECT_EQ(file.obstacle, "");
  EXPECT_THAT(Names(file),
              ElementsAre("byte 0", "scale 0", "pad 0", "stated", "scale 1", "scale 2", "here", "pad 1", "byte 1"));
  ASSERT_TRUE(file.stays.has_value());
  EXPECT_EQ(file.stays->kept, 16u);
}

TEST(PlacementTest, TheSameTensorsInTheSamePlacesNeedNothing) {
  Case c;
  c.Give("a", c.Store("a", DType::kU8, {8}));
  c.Give("b", c.Store("b", DType::kF32, {2, 2}));
  EXPECT_TRUE(c.InPlace().stays->same_header);
  c.conversion.tensors[1].name = "c";
  EXPECT_FALSE(c.InPlace().stays->same_header);
}

TEST(PlacementTest, AShardWithoutTensorsNeedsNothing) {
  const PlannedFile file = Case().InPlace();
  ASSERT_TRUE(file.stays.has_value());
  EXPECT_TRUE(file.stays->same_header);
  EXPECT_EQ(file.stays->kept, 0u);
}

TEST(PlacementTest, EmptyTensorsAreInNothingsWay) {
  Case c;
  const Array empty = c.Store("empty", DType::kF32, {0, 4});
  c.Give("full", c.Store("full", DType::kU8, {8}));
  c.Give("nothing", empty);
  const PlannedFile file = c.InPlace();
  EXPECT_EQ(file.obstacle, "");
  EXPECT_THAT(Names(file), ElementsAre("full", "nothing"));
}

TEST(PlacementTest, PermutedRowsAreRewrittenInTheirPlace) {
  Case c;
  const Array before = c.Store("before", DType::kU8, {16});
  const Array rows = c.Store("rows", DType::kBF16, {4, 8});
  const Array behind = c.Store("behind", DType::kU8, {4});
  c.Give("a", before);
  const std::vector<Array> halves = {Slice(rows, 0, 2, 2), Slice(rows, 0, 0, 2)};
  c.Give("b", Concatenate(halves, 0));
  c.Give("c", behind);
  const PlannedFile file = c.InPlace();
  ASSERT_TRUE(file.stays.has_value()) << file.obstacle;
  EXPECT_THAT(file.stays->rewritten, ElementsAre(IsRange(16, 80)));
  EXPECT_EQ(file.stays->kept, 84u);
}

TEST(PlacementTest, TensorsInterleavedInOneAreRewrittenTogether) {
  Case c;
  const Array pairs = c.Store("pairs", DType::kBF16, {8, 4});
  const Array split = SplitDim(pairs, 0, 2);
  c.Give("odd", Select(split, 1, 1));
  c.Give("even", Select(split, 1, 0));
  const PlannedFile file = c.InPlace();
  ASSERT_TRUE(file.stays.has_value()) << file.obstacle;
  EXPECT_THAT(file.stays->rewritten, ElementsAre(IsRange(0, 64)));
  EXPECT_THAT(Names(file), ElementsAre("even", "odd"));
}

TEST(PlacementTest, AHoleIsRefusedByName) {
  for (const int missing : {0, 1, 2}) {
    Case c;
    for (int i = 0; i < 3; ++i) {
      const Array array = c.Store(fmt::format("t{}", i), DType::kU8, {8});
      if (i != missing) c.Give(fmt::format("t{}", i), array);
    }
    EXPECT_EQ(c.Obstacle(), fmt::format("bytes of t{} would be a hole in the data", missing));
  }
}

TEST(PlacementTest, RowsThatAreLeftOutAreAHole) {
  Case c;
  c.Give("rows", Slice(c.Store("all", DType::kU8, {4, 8}), 0, 0, 3));
  EXPECT_EQ(c.Obstacle(), "bytes of all would be a hole in the data");
}

TEST(PlacementTest, BytesThatWentToAnotherShardAreAHole) {
  Case c({1000, 1000});
  const Array a = c.Store("a", DType::kU8, {8});
  const Array b = c.Store("b", DType::kU8, {8}, 1);
  c.Give("both", Concatenate(std::vector<Array>{a, b}, 0));
  const Plan plan = c.Make(Options(kBlock, true));
  ASSERT_EQ(plan.files.size(), 1u);
  EXPECT_EQ(plan.files[0].obstacle, "bytes of a would be a hole in the data");
}

TEST(PlacementTest, RewrittenBytesThatAreUsedTwiceAreRefused) {
  Case c;
  const Array rows = c.Store("rows", DType::kU8, {4, 8});
  c.Give("twice", Concatenate(std::vector<Array>{Slice(rows, 0, 2, 2), rows}, 0));
  EXPECT_EQ(c.Obstacle(), "the bytes that make up twice are not used once each");
}

TEST(PlacementTest, WhatIsRoundedAgainIsRefused) {
  Case c;
  const Array a = c.Store("a", DType::kF8E4M3, {8});
  c.Give("a", WithStep(a, 1));
  EXPECT_EQ(c.Obstacle(), "a is rounded again");
}

// Its bytes come from another shard, so that no byte of this one is in doubt; they would be appended as they are.
TEST(PlacementTest, WhatIsRoundedAgainIsNotAppendedEither) {
  Case c({1000, 1000});
  const Array a = c.Store("a", DType::kU8, {8});
  const Array b = c.Store("b", DType::kF8E4M3, {8}, 1);
  c.Give("a", a);
  c.Give("b", WithStep(b, 1));
  c.conversion.tensors.back().shard = 0;
  EXPECT_EQ(c.Make(Options(kBlock, true)).files.at(0).obstacle, "b is rounded again");
}

TEST(PlacementTest, ATensorThatWouldBeMisalignedIsRefused) {
  Case odd({1001});
  odd.Give("t", odd.Store("t", DType::kBF16, {4}));
  EXPECT_EQ(odd.Obstacle(), "t would begin at no multiple of its element size");
  Case appended;
  const Array scale = appended.Store("scale", DType::kF32, {});
  appended.Give("byte", appended.Store("byte", DType::kU8, {1}));
  appended.Give("scale", scale);
  EXPECT_EQ(appended.InPlace().obstacle, "");
  appended.Give("copy", scale);
  EXPECT_EQ(appended.Obstacle(), "copy would begin at no multiple of its element size");
}

TEST(PlacementTest, DataBeginsAtTheSamePlaceOfABlock) {
  for (const uint64_t start : {uint64_t{600}, uint64_t{3000}, uint64_t{4096}, uint64_t{5000}, uint64_t{200000}}) {
    for (const uint64_t tensors : {1, 100}) {
      SCOPED_TRACE(fmt::format("{} {}", start, tensors));
      Case c({start});
      const Array stack = c.Store("stack", DType::kU8, {tensors, 8});
      for (uint64_t i = 0; i < tensors; ++i) c.Give(fmt::format("expert {}", i), Select(stack, 0, i));
      const PlannedFile room = c.InPlace();
      ASSERT_TRUE(room.stays.has_value()) << room.obstacle;
      EXPECT_EQ(room.header.size() % kBlock, start % kBlock);
      EXPECT_GE(room.header.size(), start) << "blocks are put in and never taken out";
      const PlannedFile tight = c.Make(Options(kBlock, false)).files.at(0);
      EXPECT_EQ(tight.header.size() % kBlock, start % kBlock);
      EXPECT_LT(tight.header.size(), c.Make(Options(0, false)).files.at(0).header.size() + kBlock)
          << "less than a block of padding";
      for (const PlannedFile* file : {&room, &tight}) {
        const std::string& header = file->header;
        const auto parsed = ParseHeader(std::string_view(header).substr(kLengthBytes), file->bytes, "header");
        ASSERT_TRUE(parsed.ok());
        EXPECT_EQ(parsed->data_start, header.size());
        EXPECT_EQ(parsed->tensors.size(), tensors);
      }
    }
  }
}

TEST(PlacementTest, ALongerHeaderThanTheFormatAllowsIsRefused) {
  const uint64_t most = kLengthBytes + kMaxHeaderBytes;
  Case fits({most});
  fits.Give("t", fits.Store("t", DType::kU8, {8}));
  EXPECT_EQ(fits.InPlace().obstacle, "");
  Case c({most + kBlock - 8});  // of a checkpoint that other programs refuse
  c.Give("t", c.Store("t", DType::kU8, {8}));
  EXPECT_THAT(c.Obstacle(), HasSubstr("the header would pass the format's cap of 100000000 bytes"));
}

// ---- no byte depends on where it is put --------------------------------------------------------------------------

// A tensor made of some of the stored ones, in one of the ways in which conversions do.
void GiveSome(Case* c, const Array& whole, uint32_t number, std::mt19937* random) {
  const auto below = [&](uint64_t n) { return (*random)() % n; };
  const auto name = [&](const char* part) { return fmt::format("{} {}", part, number); };
  const uint64_t rows = whole.shape[0];
  switch (below(8)) {
    case 0: {
      const uint64_t cut = below(rows + 1);
      c->Give(name("first"), Slice(whole, 0, 0, cut));
      c->Give(name("second"), Slice(whole, 0, cut, rows - cut));
      break;
    }
    case 1:
      for (uint64_t i = 0; i < rows; ++i) c->Give(name("entry") + fmt::format(" {}", i), Select(whole, 0, i));
      break;
    case 2:
      c->Give(name("transposed"), SwapDims(whole, 0, 1));
      break;
    case 3: {
      const uint64_t cut = below(rows + 1);
      c->Give(name("swapped"),
              Concatenate(std::vector<Array>{Slice(whole, 0, cut, rows - cut), Slice(whole, 0, 0, cut)}, 0));
      break;
    }
    case 4:
      c->Give(name("copy"), whole);
      c->Give(name("original"), whole);
      break;
    case 5:
      if (below(4) == 0) break;  // a hole, now and then
      [[fallthrough]];
    default:
      c->Give(name("same"), whole);
  }
}

Case RandomCase(uint32_t seed) {
  std::mt19937 random(seed);
  const auto below = [&](uint64_t n) { return random() % n; };
  constexpr DType kDTypes[] = {DType::kU8, DType::kBF16, DType::kF32, DType::kF8E4M3};
  std::vector<uint64_t> starts;
  for (uint64_t i = 0; i <= below(3); ++i) starts.push_back(below(4) == 0 ? 900 + below(300) : 512 + 8 * below(1000));
  Case c(starts);
  std::vector<Array> stored;
  for (uint32_t shard = 0; shard < starts.size(); ++shard) {
    for (uint64_t i = 0, count = below(6); i < count; ++i) {
      const uint64_t rows = 1 + below(6);
      stored.push_back(
          c.Store(fmt::format("stored {}", stored.size()), kDTypes[below(4)], {rows, 4 * (1 + below(40))}, shard));
    }
  }
  for (uint32_t i = 0; i < stored.size(); ++i) GiveSome(&c, stored[i], i, &random);
  if (stored.size() > 1 && below(3) == 0) {
    const Array& last = stored.back();
    c.Give("from the last shard", last);
    c.conversion.tensors.back().shard = 0;
  }
  std::shuffle(c.conversion.tensors.begin(), c.conversion.tensors.end(), random);
  return c;
}

Sources OpenAll(const Plan& plan) {
  auto sources = Sources::Open(plan.sources, LocalStorage());
  EXPECT_TRUE(sources.ok());
  return std::move(*sources);
}

std::string BytesOfFile(const Plan& plan, const PlannedFile& file, const Sources& sources) {
  std::string bytes(file.bytes, '\0');
  const OutputBytes output(plan, file, sources, nullptr);
  EXPECT_TRUE(output.Fill(0, std::as_writable_bytes(std::span(bytes))).ok());
  return bytes;
}

std::map<std::string, std::string> TensorsOf(const Plan& plan, const Sources& sources) {
  std::map<std::string, std::string> tensors;
  for (const PlannedFile& file : plan.files) {
    const std::string bytes = BytesOfFile(plan, file, sources);
    for (const PlannedTensor& tensor : file.tensors) {
      const uint64_t at = file.header.size() + tensor.info.begin;
      EXPECT_TRUE(tensors.emplace(tensor.info.name, bytes.substr(at, tensor.info.end - tensor.info.begin)).second);
    }
  }
  return tensors;
}

// The claim of StayingData, byte by byte.
void ExpectStays(const Plan& plan, const PlannedFile& file, const Sources& sources) {
  const StayingData& stays = *file.stays;
  const std::string data = BytesOfFile(plan, file, sources).substr(file.header.size());
  std::string old(stays.kept, '\0');
  ASSERT_TRUE(sources[stays.source].ReadAt(std::as_writable_bytes(std::span(old)), stays.source_data_start).ok());
  ASSERT_EQ(stays.source_data_start + stays.kept,
            sources[stays.source].Size().ok() ? *sources[stays.source].Size() : 0);
  for (const ByteRange& range : stays.rewritten) {
    ASSERT_LE(range.end, stays.kept);
    old.replace(range.begin, range.end - range.begin, data, range.begin, range.end - range.begin);
  }
  EXPECT_TRUE(data.substr(0, stays.kept) == old);
  for (const PlannedTensor& tensor : file.tensors)
    EXPECT_EQ((file.header.size() + tensor.info.begin) % Alignment(tensor.info.dtype), 0u) << tensor.info.name;
}

TEST(PlacementTest, RandomPlansGiveTheSameTensorsInPlace) {
  int staying = 0, rewritten = 0, appended = 0, refused = 0;
  for (uint32_t seed = 0; seed < 400; ++seed) {
    SCOPED_TRACE(seed);
    const TempDir dir;
    const Case c = RandomCase(seed);
    c.WriteShards(dir.path());
    const Plan placed = c.Make(Options(kBlock, true), dir.path());
    const Plan classic = c.Make(Options(0, false), dir.path());
    const Sources sources = OpenAll(placed);
    EXPECT_TRUE(TensorsOf(placed, sources) == TensorsOf(classic, sources));
    for (const PlannedFile& file : placed.files) {
      EXPECT_NE(file.stays.has_value(), !file.obstacle.empty());
      refused += !file.stays;
      if (!file.stays) continue;
      ExpectStays(placed, file, sources);
      ++staying;
      rewritten += !file.stays->rewritten.empty();
      appended += file.bytes - file.header.size() > file.stays->kept;
    }
  }
  // Or the plans would not be random enough.
  EXPECT_GT(staying, 100);
  EXPECT_GT(rewritten, 50);
  EXPECT_GT(appended, 50);
  EXPECT_GT(refused, 50);
}

}  // namespace
}  // namespace quantport
