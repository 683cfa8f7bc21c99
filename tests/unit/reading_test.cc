// What commands read of a checkpoint, and what becomes of reads that fail, give less than was asked for, or end early.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>

#include "checkpoint/checkpoint.h"
#include "diff/diff.h"
#include "exec/copy.h"
#include "exec/quantize.h"
#include "inspect/inspect.h"
#include "io/local_storage.h"
#include "io/output_folder.h"
#include "prepare/prepare.h"
#include "prepare/quantize.h"
#include "support/checkpoint_builder.h"
#include "support/source_dir.h"
#include "support/watched_storage.h"
#include "unit/error_lines.h"
#include "verify/verify.h"

namespace quantport {
namespace {

namespace fs = std::filesystem;

using test::Faults;
using test::ReadRecord;
using test::WatchedStorage;
using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

const fs::path kRoot = test::SourceDir();
const fs::path kExport = kRoot / "samples/minimax-m3-tiny/export";
const fs::path kHub = kRoot / "samples/minimax-m3-tiny/hub";
const fs::path kLayouts = kRoot / "tests/golden/layouts";

// What a command made of what it read: its errors and problems, and all that it says else.
struct Outcome {
  Errors errors;
  std::string text;
};

using Command = std::function<Outcome(const Storage&)>;

template <typename Report, typename ToText>
Outcome OutcomeOf(const Result<Report>& result, const ToText& text) {
  return result ? Outcome{{}, text(*result)} : Outcome{result.errors(), {}};
}

Command InspectOf(const fs::path& folder) {
  return [folder](const Storage& storage) { return OutcomeOf(Inspect(storage, folder), InspectJson); };
}

Command VerifyOf(const fs::path& checkpoint, const fs::path& reference) {
  VerifyOptions options;
  options.checkpoint = checkpoint;
  options.reference = reference;
  return [options](const Storage& storage) {
    auto report = Verify(options, storage);
    if (!report) return Outcome{report.errors(), {}};
    return Outcome{report->problems, VerifyJson(*report)};
  };
}

Command PlanRevertOf(const fs::path& input, const std::optional<fs::path>& reference) {
  RevertOptions options;
  options.input = input;
  options.reference = reference;
  return [options](const Storage& storage) {
    return OutcomeOf(Prepare(options, Direction::kRevert, {}, storage),
                     [](const Prepared& prepared) { return ReportJson(prepared.report); });
  };
}

Command PlanQuantizeOf(const fs::path& input) {
  QuantizeOptions options;
  options.input = input;
  options.recipe.name = "w4a16_nvfp4";
  return [options](const Storage& storage) {
    return OutcomeOf(PrepareQuantize(options, storage),
                     [](const PreparedQuantize& prepared) { return QuantizeJson(prepared.report); });
  };
}

Command PlanDequantizeOf(const fs::path& input) {
  DequantizeOptions options;
  options.input = input;
  return [options](const Storage& storage) {
    return OutcomeOf(PrepareDequantize(options, storage),
                     [](const PreparedQuantize& prepared) { return QuantizeJson(prepared.report); });
  };
}

Command DiffOf(const fs::path& a, const fs::path& b, bool data) {
  DiffOptions options;
  options.a = a;
  options.b = b;
  options.data = data;
  options.threads = 1;
  return [options](const Storage& storage) { return OutcomeOf(Diff(options, storage), DiffJson); };
}

// Commands that read no tensor, or small ones that say how others are stored.
std::map<std::string, Command> PlanningCommands() {
  return {{"inspect", InspectOf(kExport)},
          {"inspect of tensors that say how others are stored", InspectOf(kLayouts / "bnb-nf4/export")},
          {"verify", VerifyOf(kHub, kHub)},
          {"verify by an index", VerifyOf(kHub, kHub / kIndexName)},
          {"revert", PlanRevertOf(kExport, {})},
          {"revert by a reference", PlanRevertOf(kExport, kHub)},
          {"revert by an index", PlanRevertOf(kExport, kHub / kIndexName)},
          {"quantize", PlanQuantizeOf(kHub)},
          {"dequantize", PlanDequantizeOf(kLayouts / "modelopt-nvfp4/export")},
          {"dequantize of tensors that say how others are stored", PlanDequantizeOf(kLayouts / "ct-pack-int4/export")},
          {"diff of names", DiffOf(kExport, kHub, false)}};
}

// The tensors of the files that were read, by the file's address.
std::map<std::string, TensorTable> TablesOf(const std::vector<ReadRecord>& reads) {
  std::map<std::string, TensorTable> tables;
  for (const ReadRecord& read : reads) {
    const std::string folder = fs::path(read.address).parent_path();
    if (tables.contains(folder)) continue;
    auto checkpoint = OpenCheckpoint(LocalStorage(), folder);
    EXPECT_TRUE(checkpoint.ok()) << folder;
    if (checkpoint) tables.emplace(folder, std::move(checkpoint->table));
  }
  return tables;
}

// Names of the tensors of which any byte was read.
std::vector<std::string> TensorsRead(const std::vector<ReadRecord>& reads) {
  const auto tables = TablesOf(reads);
  std::vector<std::string> names;
  for (const ReadRecord& read : reads) {
    const fs::path path = read.address;
    const TensorTable& table = tables.at(path.parent_path());
    for (const StoredTensor& tensor : table.tensors) {
      const Shard& shard = table.shards[tensor.shard];
      const bool touched = shard.name == path.filename() && read.offset < shard.data_start + tensor.info.end &&
                           read.offset + read.bytes > shard.data_start + tensor.info.begin;
      if (touched) names.push_back(tensor.info.name);
    }
  }
  return names;
}

TEST(ReadingTest, PlanningReadsHeadersConfigsAndTensorsThatSayHowOthersAreStored) {
  for (const auto& [name, command] : PlanningCommands()) {
    SCOPED_TRACE(name);
    const WatchedStorage storage(LocalStorage());
    const Outcome outcome = command(storage);
    EXPECT_THAT(test::ErrorLines(outcome.errors), IsEmpty());
    ASSERT_FALSE(storage.reads().empty());
    for (const ReadRecord& read : storage.reads()) {
      const std::string file = fs::path(read.address).filename();
      EXPECT_TRUE(file.ends_with(".safetensors") || file == kIndexName || file.ends_with("config.json") ||
                  name.starts_with("diff"))
          << file;
    }
    for (const std::string& tensor : TensorsRead(storage.reads()))
      EXPECT_THAT(tensor, ::testing::AnyOf(HasSubstr(".quant_state."), HasSubstr(".weight_shape")));
  }
}

// So that the test above can fail.
TEST(ReadingTest, ComparingDataReadsTensors) {
  const WatchedStorage storage(LocalStorage());
  (void)DiffOf(kHub, kHub, true)(storage);
  EXPECT_THAT(TensorsRead(storage.reads()), Contains(Not(HasSubstr(".quant_state."))));
  const WatchedStorage small(LocalStorage());
  (void)InspectOf(kLayouts / "bnb-nf4/export")(small);
  EXPECT_THAT(TensorsRead(small.reads()), Contains(HasSubstr(".quant_state.")));
}

// Fails the first thing that is asked for, then the second, until all went well.
void ExpectEveryFailureTold(const Command& command) {
  for (uint64_t n = 1;; ++n) {
    const WatchedStorage storage(LocalStorage(), {.fail_at = n, .cut_file = {}});
    const Outcome outcome = command(storage);
    if (!storage.failed()) {
      EXPECT_GT(n, 1u);
      return;
    }
    SCOPED_TRACE(fmt::format("{}: {}", n, *storage.failed()));
    const bool told = std::any_of(outcome.errors.begin(), outcome.errors.end(), [&](const Error& error) {
      return error.kind == ErrorKind::kIo && error.file == *storage.failed() && !error.message.empty();
    });
    ASSERT_TRUE(told) << outcome.text << testing::PrintToString(test::ErrorLines(outcome.errors));
  }
}

TEST(ReadingTest, EveryFailureIsAnErrorThatNamesTheFile) {
  for (const auto& [name, command] : PlanningCommands()) {
    SCOPED_TRACE(name);
    ExpectEveryFailureTold(command);
  }
  ExpectEveryFailureTold(DiffOf(kHub, kHub, true));
}

// Scales that can't be read are not scales that agree.
TEST(ReadingTest, EveryFailureOfAScaleThatAnEngineSharesIsAnError) {
  const test::TempDir folder;
  std::vector<test::TestTensor> tensors;
  for (const char* name : {"q_proj", "k_proj", "v_proj"}) {
    const std::string module = fmt::format("model.layers.0.self_attn.{}", name);
    tensors.push_back({module + ".weight", "U8", {32, 16}, {}});
    tensors.push_back({module + ".weight_scale", "F8_E4M3", {32, 2}, {}});
    tensors.push_back({module + ".weight_scale_2", "F32", {}, {}});
    tensors.push_back({module + ".input_scale", "F32", {}, {}});
  }
  test::WriteCheckpoint(folder.path(),
                        R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "quantization_config":
                            {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16}})",
                        tensors);
  VerifyOptions options;
  options.checkpoint = folder.path();
  options.find_reference = false;
  options.engine = "vllm";
  const Command verify = [options](const Storage& storage) {
    auto report = Verify(options, storage);
    return report ? Outcome{report->problems, VerifyJson(*report)} : Outcome{report.errors(), {}};
  };
  const WatchedStorage storage(LocalStorage());
  (void)verify(storage);
  EXPECT_THAT(TensorsRead(storage.reads()), Contains(HasSubstr("weight_scale_2")));
  ExpectEveryFailureTold(verify);
}

TEST(ReadingTest, ReadsThatGiveLessThanAskedForAreCompleted) {
  for (const auto& [name, command] : PlanningCommands()) {
    SCOPED_TRACE(name);
    const WatchedStorage whole(LocalStorage());
    const WatchedStorage pieces(LocalStorage(), {.read_bytes = 37, .cut_file = {}});
    const Outcome outcome = command(pieces);
    EXPECT_THAT(test::ErrorLines(outcome.errors), IsEmpty());
    EXPECT_EQ(outcome.text, command(whole).text);
    EXPECT_GT(pieces.reads().size(), whole.reads().size());
  }
}

TEST(ReadingTest, AFileThatWasCutMeanwhileIsAnErrorThatNamesIt) {
  for (const uint64_t at : {0, 5, 8, 100}) {
    const WatchedStorage storage(LocalStorage(), {.cut_file = "model-00002-of-00002.safetensors", .cut_at = at});
    const Outcome outcome = InspectOf(kExport)(storage);
    ASSERT_EQ(outcome.errors.size(), 1u) << at;
    EXPECT_THAT(outcome.errors[0].file, HasSubstr("model-00002-of-00002.safetensors"));
    EXPECT_THAT(outcome.errors[0].message, HasSubstr(fmt::format("the file ends at byte {}", at)));
  }
}

// ---- what carries plans out -------------------------------------------------------------------------------------

// The bytes of every file in the folder.
std::string Contents(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(folder))
    files[entry.path().filename()] = test::ReadFile(entry.path());
  std::string all;
  for (const auto& [name, bytes] : files) all += name + "\n" + bytes;
  return all;
}

// Carries the plan out on a single thread, so that the n-th read is the same in every run.
template <typename Write>
void ExpectReadsThatFailAreToldAndShortOnesCompleted(const Write& write) {
  const test::TempDir whole;
  ASSERT_TRUE(write(LocalStorage(), whole.path()).ok());
  const test::TempDir pieces;
  const WatchedStorage short_reads(LocalStorage(), {.read_bytes = 101, .cut_file = {}});
  ASSERT_TRUE(write(short_reads, pieces.path()).ok());
  EXPECT_TRUE(Contents(pieces.path()) == Contents(whole.path()));
  const WatchedStorage counting(LocalStorage());
  const test::TempDir counted;
  ASSERT_TRUE(write(counting, counted.path()).ok());
  const uint64_t stride = std::max<uint64_t>(1, counting.asked() / 50);
  for (uint64_t n = 1; n <= counting.asked(); n += stride) {
    const WatchedStorage failing(LocalStorage(), {.fail_at = n, .cut_file = {}});
    const test::TempDir out;
    const Status status = write(failing, out.path());
    ASSERT_FALSE(status.ok()) << n;
    ASSERT_TRUE(failing.failed());
    EXPECT_EQ(status.errors()[0].file, *failing.failed());
  }
}

TEST(ReadingTest, CopyingTellsOfReadsThatFailAndCompletesShortOnes) {
  RevertOptions options;
  options.input = kExport;
  const auto prepared = Prepare(options, Direction::kRevert, {}, LocalStorage());
  ASSERT_TRUE(prepared.ok());
  ExpectReadsThatFailAreToldAndShortOnesCompleted([&](const Storage& storage, const fs::path& out) -> Status {
    ExecOptions exec;
    exec.work.threads = 1;
    auto report = WriteFiles(prepared->plan, storage, OpenOutputFolder(out).get(), "", exec);
    return report ? Status() : Status(report.errors());
  });
}

template <typename Prepared>
void ExpectComputingTells(const Result<Prepared>& prepared) {
  ASSERT_TRUE(prepared.ok());
  ExpectReadsThatFailAreToldAndShortOnesCompleted([&](const Storage& storage, const fs::path& out) -> Status {
    ExecOptions exec;
    exec.work.threads = 1;
    auto report = WriteQuantized(prepared->plan, storage, OpenOutputFolder(out).get(), "", exec);
    return report ? Status() : Status(report.errors());
  });
}

TEST(ReadingTest, QuantizingTellsOfReadsThatFailAndCompletesShortOnes) {
  QuantizeOptions options;
  options.input = kHub;
  options.recipe.name = "w4a16_nvfp4";
  ExpectComputingTells(PrepareQuantize(options, LocalStorage()));
}

TEST(ReadingTest, DequantizingTellsOfReadsThatFailAndCompletesShortOnes) {
  for (const char* format : {"modelopt-nvfp4", "modelopt-fp8", "gptq-4bit-order", "awq-gemm", "ct-pack-int4"}) {
    SCOPED_TRACE(format);
    DequantizeOptions options;
    options.input = kLayouts / format / "export";
    ExpectComputingTells(PrepareDequantize(options, LocalStorage()));
  }
}

}  // namespace
}  // namespace quantport
