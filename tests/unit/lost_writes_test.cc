// Loss of power at any instant, with any part of what was not synced: what is left is the old checkpoint or the new
// one, or becomes one of them by `recover`. The disk is tests/support/losing_folder.h.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <set>

#include "io/folder_lock.h"
#include "pipeline.h"
#include "safetensors/header.h"
#include "support/checkpoint_builder.h"
#include "support/losing_folder.h"
#include "unit/error_lines.h"

namespace quantport {
namespace {

namespace fs = std::filesystem;

using test::Disk;
using test::DiskAbilities;
using test::DiskState;
using test::ErrorLines;
using test::LosingFolder;
using test::Survives;
using test::TempDir;
using test::TestTensor;
using testing::IsEmpty;

using Files = std::map<std::string, std::string>;

constexpr DiskAbilities kPlain = {false, false};
constexpr DiskAbilities kClones = {true, false};
constexpr DiskAbilities kInserts = {false, true};

// What may be left of the first `count` changes: nothing but what was synced, everything, all but one change, one
// alone, and some by chance; shifts whole and torn. Each state once.
std::vector<DiskState> Losses(const Disk& disk, size_t count, std::mt19937* random, size_t most_singles = 24) {
  std::vector<Survives> choices = {[](size_t) { return false; }, [](size_t) { return true; }};
  const size_t unsynced = disk.Unsynced(count);
  for (size_t i = 0; i < std::min(unsynced, most_singles); ++i) {
    const size_t one = unsynced <= most_singles ? i : (*random)() % unsynced;
    choices.push_back([one](size_t change) { return change == one; });
    choices.push_back([one](size_t change) { return change != one; });
  }
  for (const double share : {0.2, 0.5, 0.5, 0.8}) {
    std::vector<bool> kept(unsynced);
    for (size_t i = 0; i < unsynced; ++i) kept[i] = std::bernoulli_distribution(share)(*random);
    choices.push_back([kept](size_t change) { return kept[change]; });
  }
  std::vector<DiskState> states;
  std::set<std::string> seen;
  for (const Survives& survives : choices) {
    for (const auto& torn : {std::optional<size_t>(), std::optional<size_t>(0), std::optional<size_t>(1),
                             std::optional<size_t>(2), std::optional<size_t>(4)}) {
      DiskState state = disk.Left(count, survives, torn);
      if (seen.insert(state.Key()).second) states.push_back(std::move(state));
    }
  }
  return states;
}

// ---- a new folder -----------------------------------------------------------------------------------------------

// In a folder that is empty before; the result is its files, or what a loss of power makes wrong.
using Conversion = std::function<Status(LosingFolder*)>;

std::string ProblemOfNewFolder(const Conversion& convert, std::optional<size_t> skipped_sync = std::nullopt,
                               size_t* syncs = nullptr) {
  Disk disk{DiskState{{{0, {}}}, {}}};
  const TempDir seen;
  LosingFolder folder(seen.path(), &disk, kPlain);
  if (skipped_sync) folder.SkipSync(*skipped_sync);
  if (auto status = convert(&folder); !status) return status.errors()[0].ToString();
  if (syncs != nullptr) *syncs = folder.syncs();
  const Files want = disk.now().Visible();
  EXPECT_GE(want.size(), 3u);
  std::mt19937 random(1);
  for (const size_t point : disk.LossPoints()) {
    for (const DiskState& state : Losses(disk, point, &random)) {
      const Files left = state.Visible();
      if (left.empty() && point < disk.changes()) continue;
      if (left != want) return fmt::format("a loss of power after {} changes of {}", point, disk.changes());
    }
  }
  return {};
}

// Every sync is needed: without any one of them some loss leaves an output that looks finished, or none at all.
void ExpectNoLossAndNoIdleSync(const Conversion& convert) {
  size_t syncs = 0;
  EXPECT_EQ(ProblemOfNewFolder(convert, std::nullopt, &syncs), "");
  EXPECT_GE(syncs, 5u);
  for (size_t i = 0; i < syncs; ++i) EXPECT_NE(ProblemOfNewFolder(convert, i), "") << "without sync " << i;
}

constexpr std::string_view kShorter = R"({"format": 1, "library": "private", "version": "1",
  "conversions": {"my_model": [
    {"type": "WeightRenaming", "source_patterns": ["^h\\."], "target_patterns": ["model.decoder_layers."]},
    {"type": "WeightConverter", "source_patterns": ["w_in.weight"], "target_patterns": ["linear.weight"],
     "operations": [{"op": "Transpose", "dim0": 0, "dim1": 1}]}]},
  "classes": {"MyModel": {"model_type": "my_model", "base_model_prefix": ""}}})";
constexpr std::string_view kLonger = R"({"format": 1, "library": "private", "version": "1",
  "conversions": {"my_model": [
    {"type": "WeightRenaming", "source_patterns": ["^the_decoder\\.its_layers\\."], "target_patterns": ["h."]},
    {"type": "WeightConverter", "source_patterns": ["w_in.weight"], "target_patterns": ["linear.weight"],
     "operations": [{"op": "Transpose", "dim0": 0, "dim1": 1}]}]},
  "classes": {"MyModel": {"model_type": "my_model", "base_model_prefix": ""}}})";

// Data that begins at a multiple of eight, as the official library writes it: else it can't stay where it is.
void AlignData(const fs::path& path) {
  std::string bytes = test::ReadFile(path);
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof(length));
  const uint64_t spaces = (8 - length % 8) % 8;
  bytes.insert(8 + length, spaces, ' ');
  length += spaces;
  std::memcpy(bytes.data(), &length, sizeof(length));
  test::WriteFile(path, bytes);
}

// Two shards with one small weight each that is transposed, and configs whose module references change.
void WriteExport(const fs::path& folder, const std::string& layers) {
  std::vector<TestTensor> tensors;
  for (int layer = 0; layer < 2; ++layer) {
    const std::string block = fmt::format("{}{}.", layers, layer);
    tensors.push_back({block + "router.weight", "BF16", {160, 64}, {}});
    tensors.push_back({block + "gate.weight", "BF16", {61, 73}, {}});
  }
  for (int layer = 0; layer < 2; ++layer)
    tensors.push_back({fmt::format("{}{}.linear.weight", layers, layer), "BF16", {24, 30}, {}});
  const std::string config = fmt::format(
      R"({{"architectures": ["MyModel"], "model_type": "my_model", "quantization_config":
           {{"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["{0}0.router", "{0}1.gate"]}}}})",
      layers);
  test::WriteCheckpoint(folder, config, tensors, 2);
  for (const char* name : {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"})
    AlignData(folder / name);
  test::WriteFile(folder / "tokenizer.txt", test::FillBytes("tokenizer", 9000));
  test::WriteFile(folder / "assets/deep/logo.txt", "logo");
}

// Three shards: an FP8 weight that is cut, so that its scale is appended; halves of a weight in two shards, which
// become one, so that the last shard has no tensor left.
void WriteCutAndJoined(const fs::path& folder, const std::string& layers) {
  const std::vector<TestTensor> tensors = {
      {layers + "0.gate_up.weight", "F8_E4M3", {192, 96}, {}}, {layers + "0.left.weight", "BF16", {40, 64}, {}},
      {layers + "0.right.weight", "BF16", {40, 64}, {}},       {layers + "0.gate_up.weight_scale", "F32", {}, {}},
      {layers + "0.router.weight", "BF16", {61, 73}, {}},
  };
  const std::string config = R"({"architectures": ["MyModel"], "model_type": "my_model", "quantization_config":
      {"quant_method": "modelopt", "quant_algo": "FP8", "ignore": [")" +
                             layers + R"(0.left", ")" + layers + R"(0.right", ")" + layers + R"(0.router"]}})";
  test::WriteCheckpoint(folder, config, tensors, 3);
  for (const char* name : {"model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors"})
    AlignData(folder / name);
}

// The mapping of such a checkpoint, whose layers are in memory what `in_memory` says.
std::string CutAndJoined(const std::string& on_the_hub, const std::string& in_memory) {
  return R"({"format": 1, "library": "private", "version": "1", "conversions": {"my_model": [
    {"type": "WeightRenaming", "source_patterns": [")" +
         on_the_hub + R"("], "target_patterns": [")" + in_memory + R"("]},
    {"type": "WeightConverter", "source_patterns": ["gate.weight", "up.weight"], "target_patterns": ["gate_up.weight"],
     "operations": [{"op": "Concatenate", "dim": 0}]},
    {"type": "WeightConverter", "source_patterns": ["pair.weight"], "target_patterns": ["left.weight", "right.weight"],
     "operations": [{"op": "Chunk", "dim": 0}]}]},
  "classes": {"MyModel": {"model_type": "my_model", "base_model_prefix": ""}}})";
}

RevertOptions Options(const fs::path& input, std::string_view mapping) {
  RevertOptions options;
  options.input = input;
  options.mapping.mapping_json = std::string(mapping);
  options.threads = 2;
  return options;
}

TEST(LostWritesTest, ANewFolderOfARevertIsWholeOrNotThere) {
  const TempDir input;
  WriteExport(input.path(), "model.decoder_layers.");
  ExpectNoLossAndNoIdleSync([&](LosingFolder* folder) -> Status {
    auto options = Options(input.path(), kShorter);
    options.output = folder->path() / "out";
    auto report = Convert(options, Direction::kRevert, folder);
    return report ? Status() : Status(report.errors());
  });
}

TEST(LostWritesTest, ANewFolderOfQuantizeIsWholeOrNotThere) {
  const TempDir input;
  std::vector<TestTensor> tensors;
  for (const char* name : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                           "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"})
    tensors.push_back({fmt::format("layers.0.{}.weight", name), "BF16", {64, 64}, std::string(64 * 64 * 2, '<')});
  tensors.push_back({"norm.weight", "BF16", {64}, {}});
  test::WriteCheckpoint(input.path(), R"({"architectures": ["Nobody"], "model_type": "nobody"})", tensors, 2);
  ExpectNoLossAndNoIdleSync([&](LosingFolder* folder) -> Status {
    QuantizeOptions options;
    options.input = input.path();
    options.output = folder->path() / "out";
    options.recipe.name = "w4a16_nvfp4";
    options.threads = 2;
    auto report = ConvertQuantized(options, folder);
    return report ? Status() : Status(report.errors());
  });
}

// ---- in place ---------------------------------------------------------------------------------------------------

std::string_view DataOf(std::string_view shard) {
  const auto length = ParseHeaderLength(std::as_bytes(std::span(shard)).first(8), shard.size(), "");
  EXPECT_TRUE(length.ok());
  return shard.substr(8 + *length);
}

bool HasJournal(const DiskState& state) { return state.folders.at(0).contains(std::string(kJournalName)); }

// A shard that a reader takes is one of the two, whatever the others are; also for a reader who believes the header and
// does not look at the file's size.
bool EachReadableShardIsEither(const Files& files, const Files& old, const Files& changed) {
  for (const auto& [name, bytes] : files) {
    if (!name.ends_with(".safetensors")) continue;
    bool is_either = false;
    for (const Files* version : {&old, &changed}) {
      const auto want = version->find(name);
      if (want == version->end()) continue;
      is_either |= want->second == bytes;
      const std::string_view data = DataOf(want->second);
      const size_t header = want->second.size() - data.size();
      if (bytes.starts_with(std::string_view(want->second).substr(0, header)) && !bytes.starts_with(want->second))
        return false;
    }
    if (is_either) continue;
    const auto length =
        ParseHeaderLength(std::as_bytes(std::span(bytes)).first(std::min<size_t>(bytes.size(), 8)), bytes.size(), name);
    if (length && ParseHeader(std::string_view(bytes).substr(8, *length), bytes.size(), name)) return false;
  }
  return true;
}

struct InPlace {
  const Files& old;
  const Files& changed;
  DiskAbilities abilities;

  // What is wrong with a disk after `recover`, which may lose power itself, once.
  std::string ProblemAfter(const DiskState& state, bool undo, std::mt19937* random, bool again) const {
    Disk disk(state);
    const TempDir seen;
    LosingFolder folder(seen.path(), &disk, abilities);
    const Files& want = HasJournal(state) ? (undo ? old : changed) : state.Visible() == old ? old : changed;
    if (auto report = FinishOrUndo(&folder, undo); !report) return report.errors()[0].ToString();
    if (disk.now().Visible() != want) return "recovered to another checkpoint";
    if (!again) return {};
    const std::vector<size_t> points = disk.LossPoints();
    const size_t point = points[(*random)() % points.size()];
    std::vector<DiskState> left = Losses(disk, point, random);
    if (point == disk.changes()) {
      for (const DiskState& last : left) {
        if (HasJournal(last) || last.Visible() != want) return "lost what was recovered";
      }
    }
    const DiskState& chosen = left[(*random)() % left.size()];
    const bool other = (*random)() % 2 == 0;
    return ProblemAfter(chosen, other, random, false);
  }

  std::string Problem(const DiskState& state, std::mt19937* random, bool again = true) const {
    const Files files = state.Visible();
    if (!EachReadableShardIsEither(files, old, changed)) return "a readable shard holds other bytes";
    if (!HasJournal(state)) return files == old || files == changed ? "" : "no journal, and neither checkpoint";
    for (const bool undo : {false, true}) {
      auto problem = ProblemAfter(state, undo, random, again);
      if (!problem.empty()) return fmt::format("{}: {}", undo ? "undo" : "recover", problem);
    }
    return {};
  }
};

class LostInPlaceTest : public testing::Test {
 protected:
  struct Case {
    std::function<void(const fs::path& folder)> write;
    std::string mapping;
    DiskAbilities abilities;
    std::set<std::string> methods;  // by which its files are changed
    std::optional<uint64_t> max_shard_bytes = {};

    RevertOptions OptionsFor(const fs::path& folder) const {
      RevertOptions options = Options(folder, mapping);
      options.in_place = true;
      options.max_shard_bytes = max_shard_bytes;
      return options;
    }
  };

  // The first problem that any loss of power brings.
  std::string ProblemOf(const fs::path& input, const Case& change, std::optional<size_t> skipped_sync = std::nullopt,
                        size_t* syncs = nullptr) {
    Disk disk(input);
    const Files old = disk.now().Visible();
    const TempDir seen;
    LosingFolder folder(seen.path(), &disk, change.abilities);
    if (skipped_sync) folder.SkipSync(*skipped_sync);
    auto report = ConvertInPlace(change.OptionsFor(seen.path()), &folder);
    if (!report) return report.errors()[0].ToString();
    if (syncs != nullptr) *syncs = folder.syncs();
    std::set<std::string> seen_methods;
    std::string reasons;
    for (const FileChangeReport& file : report->changed_files) {
      seen_methods.insert(file.method);
      reasons += file.reason;
    }
    EXPECT_EQ(seen_methods, change.methods) << reasons;
    const Files changed = disk.now().Visible();
    EXPECT_NE(old, changed);
    std::mt19937 random(1);
    const InPlace in_place{old, changed, change.abilities};
    for (const size_t point : disk.LossPoints()) {
      for (const DiskState& state : Losses(disk, point, &random)) {
        auto problem = in_place.Problem(state, &random);
        if (problem.empty() && point == disk.changes() && state.Visible() != changed) problem = "the change is lost";
        if (!problem.empty())
          return fmt::format("a loss of power after {} changes of {}: {}", point, disk.changes(), problem);
      }
    }
    return {};
  }

  // A run that is killed, a recovery by another process, and then a loss of power: what the first process had not
  // synced is for the second to sync.
  std::string ProblemAfterKill(const fs::path& input, const Case& change, const Files& changed, size_t kill,
                               bool undo) {
    Disk disk(input);
    const Files old = disk.now().Visible();
    const TempDir first;
    LosingFolder killed(first.path(), &disk, change.abilities);
    killed.KillAfter(kill);
    if (ConvertInPlace(change.OptionsFor(first.path()), &killed)) return {};
    const size_t until = disk.changes();
    const Files want = HasJournal(disk.now()) ? (undo ? old : changed) : disk.now().Visible();
    const TempDir second;
    LosingFolder folder(second.path(), &disk, change.abilities);
    if (auto report = FinishOrUndo(&folder, undo); !report) return report.errors()[0].ToString();
    std::mt19937 random(static_cast<uint32_t>(kill));
    const InPlace in_place{old, changed, change.abilities};
    for (const size_t point : disk.LossPoints()) {
      if (point < until) continue;
      for (const DiskState& state : Losses(disk, point, &random, 3)) {
        auto problem = in_place.Problem(state, &random, false);
        if (problem.empty() && point == disk.changes() && state.Visible() != want) problem = "the recovery is lost";
        if (!problem.empty()) return fmt::format("after {} of {} changes: {}", point, disk.changes(), problem);
      }
    }
    return {};
  }

  void CheckKilled(const fs::path& input, const Case& change) {
    Disk disk(input);
    const TempDir seen;
    LosingFolder folder(seen.path(), &disk, change.abilities);
    ASSERT_TRUE(ConvertInPlace(change.OptionsFor(seen.path()), &folder));
    const Files changed = disk.now().Visible();
    for (size_t kill = 1; kill < disk.changes(); kill += 1 + disk.changes() / 40) {
      const bool undo = kill % 2 == 0;
      EXPECT_EQ(ProblemAfterKill(input, change, changed, kill, undo), "") << "killed after " << kill;
    }
  }

  void Check(const Case& change) {
    const TempDir input;
    change.write(input.path());
    size_t syncs = 0;
    EXPECT_EQ(ProblemOf(input.path(), change, std::nullopt, &syncs), "");
    for (size_t i = 0; i < syncs; ++i)
      EXPECT_NE(ProblemOf(input.path(), change, i), "") << "without sync " << i << " of " << syncs;
    CheckKilled(input.path(), change);
  }
};

// Layers that get shorter names, so that headers fit in their room, and layers that get longer ones.
constexpr auto WriteShorter = [](const fs::path& folder) { WriteExport(folder, "model.decoder_layers."); };
constexpr auto WriteLonger = [](const fs::path& folder) { WriteExport(folder, "h."); };

TEST_F(LostInPlaceTest, HeadersInTheirRoom) {
  Check({WriteShorter, std::string(kShorter), kPlain, {"header", "config"}});
}

TEST_F(LostInPlaceTest, InsertedBlocks) {
  Check({WriteLonger, std::string(kLonger), kInserts, {"inserted", "config"}});
}

TEST_F(LostInPlaceTest, CopiedFiles) { Check({WriteLonger, std::string(kLonger), kPlain, {"copied", "config"}}); }

TEST_F(LostInPlaceTest, ClonedFiles) { Check({WriteLonger, std::string(kLonger), kClones, {"cloned", "config"}}); }

TEST_F(LostInPlaceTest, AppendedBytesAndAShardThatGoes) {
  const std::string layers = "the_model.its_language_model.its_decoder.and_in_that_the_list_of_all_the_layers_it_has.";
  Check({[&](const fs::path& folder) { WriteCutAndJoined(folder, layers); },
         CutAndJoined("^h\\\\.", layers),
         kPlain,
         {"header", "copied", "removed", "config"}});
}

TEST_F(LostInPlaceTest, AppendedBytesBehindInsertedBlocksAndAShardThatGoes) {
  Check({[](const fs::path& folder) { WriteCutAndJoined(folder, "h."); },
         CutAndJoined("^the_decoder\\\\.its_layers\\\\.", "h."),
         kInserts,
         {"inserted", "copied", "removed", "config"}});
}

TEST_F(LostInPlaceTest, OtherShards) {
  Check({WriteShorter, std::string(kShorter), kInserts, {"copied", "removed", "config"}, 20'000});
}

}  // namespace
}  // namespace quantport
