// Plans as bytes and in parts: equal after a round trip, and with the same files as result.
#include "plan/plan_bytes.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <set>

#include "exec/quantize.h"
#include "io/local_storage.h"
#include "io/output_folder.h"
#include "plan/check_plan.h"
#include "plan/plan_parts.h"
#include "prepare/prepare.h"
#include "prepare/quantize.h"
#include "support/checkpoint_builder.h"
#include "support/source_dir.h"
#include "unit/error_lines.h"

namespace quantport {
namespace {

namespace fs = std::filesystem;

using test::ErrorLines;
using test::TempDir;
using testing::ElementsAre;

const fs::path kRoot = test::SourceDir();
const fs::path kExport = kRoot / "samples/minimax-m3-tiny/export";
const fs::path kHub = kRoot / "samples/minimax-m3-tiny/hub";
const fs::path kLayouts = kRoot / "tests/golden/layouts";

QuantizePlan PlanConversion(RevertOptions options, Direction direction) {
  auto prepared = Prepare(options, direction, {4096, false}, LocalStorage());
  EXPECT_TRUE(prepared.ok()) << options.input << testing::PrintToString(ErrorLines(prepared));
  QuantizePlan plan;
  if (prepared) plan.files = std::move(prepared->plan);
  if (prepared) plan.files.report = ReportJson(prepared->report);
  return plan;
}

QuantizePlan PlanQuantizing(const fs::path& input, const std::string& recipe, std::optional<uint64_t> shard_bytes) {
  QuantizeOptions options;
  options.input = input;
  options.recipe.name = recipe;
  options.max_shard_bytes = shard_bytes;
  auto prepared = PrepareQuantize(options, LocalStorage());
  EXPECT_TRUE(prepared.ok()) << recipe << testing::PrintToString(ErrorLines(prepared));
  if (!prepared) return {};
  prepared->plan.files.report = QuantizeJson(prepared->report);
  return std::move(prepared->plan);
}

QuantizePlan PlanDequantizing(const fs::path& input, std::optional<uint64_t> shard_bytes) {
  DequantizeOptions options;
  options.input = input;
  options.max_shard_bytes = shard_bytes;
  auto prepared = PrepareDequantize(options, LocalStorage());
  EXPECT_TRUE(prepared.ok()) << input << testing::PrintToString(ErrorLines(prepared));
  return prepared ? std::move(prepared->plan) : QuantizePlan();
}

// A plan of each kind, and of what makes them differ: copies, cuts, gathered and merged tensors, computed ones of
// groups.
std::map<std::string, QuantizePlan> Plans(const fs::path& scratch) {
  std::map<std::string, QuantizePlan> plans;
  RevertOptions options;
  options.input = kExport;
  plans["revert"] = PlanConversion(options, Direction::kRevert);
  options.reference = kHub;
  options.carry_missing = true;
  plans["revert with what is missing"] = PlanConversion(options, Direction::kRevert);
  options = {};
  options.input = kExport;
  options.max_shard_bytes = 40'000;
  plans["revert in small files"] = PlanConversion(options, Direction::kRevert);
  options = {};
  options.input = kHub;
  plans["apply"] = PlanConversion(options, Direction::kApply);
  for (const char* format : {"modelopt-fp8", "modelopt-nvfp4", "gptq-4bit", "ct-pack-int4", "bnb-nf4"}) {
    options = {};
    options.input = kLayouts / format / "export";
    options.mapping.mapping_file = kLayouts / "mapping.json";
    plans[fmt::format("revert {}", format)] = PlanConversion(options, Direction::kRevert);
    options.output = scratch / format;
    EXPECT_TRUE(Revert(options).ok()) << format;
    options.input = options.output;
    options.merge_scales = MergeScales::kMax;
    plans[fmt::format("apply {}", format)] = PlanConversion(options, Direction::kApply);
    // bitsandbytes is not dequantized.
    if (std::string_view(format) != "bnb-nf4")
      plans[fmt::format("dequantize {}", format)] = PlanDequantizing(scratch / format, {});
  }
  for (const char* recipe : {"w4a16_nvfp4", "fp8_2d_blockwise_weight_only", "fp8_per_channel_per_token"}) {
    plans[fmt::format("quantize {}", recipe)] = PlanQuantizing(kHub, recipe, {});
    plans[fmt::format("quantize {} in small files", recipe)] = PlanQuantizing(kHub, recipe, 20'000);
  }
  return plans;
}

// The plan's files with tensors, by name.
std::map<std::string, std::string> CarryOut(const QuantizePlan& plan) {
  const TempDir out;
  ExecOptions exec;
  exec.work.threads = 2;
  const auto report = WriteQuantized(plan, LocalStorage(), OpenOutputFolder(out.path()).get(), "", exec);
  EXPECT_TRUE(report.ok()) << testing::PrintToString(ErrorLines(report));
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(out.path()))
    files[entry.path().filename()] = test::ReadFile(entry.path());
  return files;
}

class PlanBytesTest : public testing::Test {
 protected:
  PlanBytesTest() : plans_(Plans(scratch_.path())) {}

  TempDir scratch_;
  std::map<std::string, QuantizePlan> plans_;
};

TEST_F(PlanBytesTest, APlanIsTheSameAfterARoundTripAndWritesTheSame) {
  for (const auto& [name, plan] : plans_) {
    SCOPED_TRACE(name);
    ASSERT_TRUE(CheckPlan(plan, "plan").ok()) << testing::PrintToString(ErrorLines(CheckPlan(plan, "plan")));
    const std::string bytes = SerializePlan(plan);
    const auto parsed = ParsePlan(bytes, "plan");
    ASSERT_TRUE(parsed.ok()) << testing::PrintToString(ErrorLines(parsed));
    EXPECT_TRUE(*parsed == plan);
    EXPECT_EQ(SerializePlan(*parsed), bytes);
    EXPECT_TRUE(CarryOut(*parsed) == CarryOut(plan));
  }
}

// So that the test above is about all that plans can hold.
TEST_F(PlanBytesTest, ThePlansOfThisTestHoldEverything) {
  std::set<std::string> held;
  for (const auto& [name, plan] : plans_) {
    const Plan& files = plan.files;
    if (files.index) held.insert("index");
    if (!files.texts.empty()) held.insert("texts");
    if (!files.copies.empty()) held.insert("copies");
    if (!files.report.empty()) held.insert("report");
    if (!files.checks.empty()) held.insert("checks");
    if (!files.merges.empty()) held.insert("merges");
    if (!files.steps.empty()) held.insert("steps");
    if (!plan.matrices.empty()) held.insert("matrices");
    if (plan.groups != 0) held.insert("groups");
    for (const PlannedFile& file : files.files) {
      if (file.stays) held.insert("data that stays");
      for (const PlannedTensor& tensor : file.tensors) {
        if (!tensor.runs.empty()) held.insert("runs");
        if (tensor.gathered) held.insert("gathered");
      }
    }
    for (const PlannedMatrix& matrix : plan.matrices)
      held.insert(matrix.source.coded.format == FormatId::kPlain ? "plain matrices" : "stored matrices");
  }
  EXPECT_THAT(held, ElementsAre("checks", "copies", "data that stays", "gathered", "groups", "index", "matrices",
                                "merges", "plain matrices", "report", "runs", "steps", "stored matrices", "texts"));
}

TEST_F(PlanBytesTest, CutDamagedAndOtherBytesAreErrorsThatNameTheFile) {
  const std::string bytes = SerializePlan(plans_.at("revert gptq-4bit"));
  for (size_t size = 0; size < bytes.size(); size += 1 + size / 50) {
    const auto cut = ParsePlan(bytes.substr(0, size), "f.plan");
    ASSERT_FALSE(cut.ok()) << size;
    EXPECT_EQ(cut.errors()[0].file, "f.plan");
  }
  for (size_t at = 0; at < bytes.size(); at += 1 + at / 50) {
    std::string damaged = bytes;
    damaged[at] ^= 4;
    ASSERT_FALSE(ParsePlan(damaged, "f.plan").ok()) << at;
  }
  EXPECT_THAT(ErrorLines(ParsePlan("{}", "f")), ElementsAre("IoError not a plan"));
  std::string later = bytes;
  later[4] = 99;
  EXPECT_THAT(ErrorLines(ParsePlan(later, "f")),
              ElementsAre("IoError a plan of version 99, and this program reads version 3"));
}

TEST_F(PlanBytesTest, APlanWhosePartsDoNotFitIsRefused) {
  const QuantizePlan& good = plans_.at("quantize w4a16_nvfp4");
  const auto refused = [&](const auto& spoil) {
    QuantizePlan plan = good;
    spoil(&plan);
    return !ParsePlan(SerializePlan(plan), "f").ok();
  };
  EXPECT_TRUE(refused([](QuantizePlan* plan) { plan->files.files[0].name = "../elsewhere"; }));
  EXPECT_TRUE(refused([](QuantizePlan* plan) { plan->files.files[1].name = plan->files.files[0].name; }));
  EXPECT_TRUE(refused([](QuantizePlan* plan) { plan->files.texts["/etc/passwd"] = ""; }));
  EXPECT_TRUE(refused([](QuantizePlan* plan) { plan->files.copies[0].name = "a/../../b"; }));
  EXPECT_TRUE(refused([](QuantizePlan* plan) { plan->files.files[0].bytes += 1; }));
  EXPECT_TRUE(refused([](QuantizePlan* plan) { plan->files.sources.pop_back(); }));
  EXPECT_TRUE(refused([](QuantizePlan* plan) { plan->files.tensors.resize(1); }));
  EXPECT_TRUE(refused([](QuantizePlan* plan) { plan->matrices[0].group = plan->groups; }));
  EXPECT_TRUE(refused([](QuantizePlan* plan) { plan->matrices[0].rows += 1; }));
  EXPECT_TRUE(refused([](QuantizePlan* plan) { plan->matrices[0].codes->file = 1000; }));
  EXPECT_TRUE(refused([](QuantizePlan* plan) { plan->groups = UINT32_MAX; }));
  EXPECT_TRUE(refused([](QuantizePlan* plan) { plan->matrices[0].target.variant.group = 0; }));
  EXPECT_FALSE(refused([](QuantizePlan*) {}));
}

TEST_F(PlanBytesTest, RefusesAWeightWhosePartsAreNotThoseOfItsFormat) {
  size_t coded = 0;
  for (const auto& [name, good] : plans_) {
    for (size_t m = 0; m < good.matrices.size(); ++m) {
      if (good.matrices[m].source.coded.format == FormatId::kPlain) continue;
      ++coded;
      const auto refused = [&](const auto& spoil) {
        QuantizePlan plan = good;
        spoil(&plan.matrices[m].source.coded);
        return !ParsePlan(SerializePlan(plan), "f").ok();
      };
      EXPECT_TRUE(refused([](CodedWeight* weight) { weight->parts.erase(weight->parts.begin()); })) << name;
      EXPECT_TRUE(refused([](CodedWeight* weight) { weight->parts[0].shape.push_back(1); })) << name;
      EXPECT_TRUE(refused([](CodedWeight* weight) { weight->parts[0].role = Role::kZeroPoint; })) << name;
      EXPECT_TRUE(refused([](CodedWeight* weight) { weight->shape = {}; })) << name;
    }
  }
  EXPECT_GT(coded, 0u);
}

// ---- parts ------------------------------------------------------------------------------------------------------

TEST_F(PlanBytesTest, AllPartsTogetherWriteWhatThePlanDoes) {
  for (const auto& [name, plan] : plans_) {
    const auto whole = CarryOut(plan);
    for (const size_t parts : {1, 2, 3, 7}) {
      SCOPED_TRACE(fmt::format("{} in {} parts", name, parts));
      std::map<std::string, std::string> together;
      std::multiset<std::string> others;
      for (size_t part = 0; part < parts; ++part) {
        const QuantizePlan cut = PartOf(plan, part, parts);
        ASSERT_TRUE(CheckPlan(cut, "part").ok()) << testing::PrintToString(ErrorLines(CheckPlan(cut, "part")));
        for (auto& [file, bytes] : CarryOut(cut)) EXPECT_TRUE(together.emplace(file, bytes).second) << file;
        for (const PlannedCopy& copy : cut.files.copies) others.insert(copy.name);
        for (const auto& [file, text] : cut.files.texts) others.insert(file);
      }
      EXPECT_TRUE(together == whole);
      EXPECT_EQ(others.size(), plan.files.copies.size() + plan.files.texts.size());
      EXPECT_EQ(std::set<std::string>(others.begin(), others.end()).size(), others.size());
    }
  }
}

TEST_F(PlanBytesTest, PartsHaveAboutAsManyBytesAndOnlyWhatTheyNeed) {
  const QuantizePlan& plan = plans_.at("quantize w4a16_nvfp4 in small files");
  uint64_t largest_file = 0;
  for (const PlannedFile& file : plan.files.files) largest_file = std::max(largest_file, file.bytes);
  for (size_t part = 0; part < 3; ++part) {
    const QuantizePlan cut = PartOf(plan, part, 3);
    EXPECT_NEAR(static_cast<double>(cut.files.TotalBytes()), static_cast<double>(plan.files.TotalBytes()) / 3,
                static_cast<double>(largest_file));
    EXPECT_LT(cut.files.tensors.size(), plan.files.tensors.size());
    EXPECT_LT(cut.matrices.size(), plan.matrices.size());
  }
}

// The case for which a part reads what it does not write.
TEST_F(PlanBytesTest, AScaleSharedAcrossPartsIsComputedFromMatricesThatAreOnlyRead) {
  const QuantizePlan& plan = plans_.at("quantize w4a16_nvfp4 in small files");
  size_t only_read = 0;
  for (size_t part = 0; part < 7; ++part) {
    for (const PlannedMatrix& matrix : PartOf(plan, part, 7).matrices)
      only_read += !matrix.codes && !matrix.scales && !matrix.scalar ? 1 : 0;
  }
  EXPECT_GT(only_read, 0u);
}

}  // namespace
}  // namespace quantport
