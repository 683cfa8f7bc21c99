// Plans of state dicts: what each result is of the tensors that are there.
#include "quantport/state_dict.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace quantport {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using testing::UnorderedElementsAre;

constexpr const char* kConfig = R"({"architectures": ["MyModel"], "model_type": "my_model"})";

std::string Mapping(const std::string& transforms) {
  return R"({"format": 1, "library": "private", "version": "1", "conversions": {"my_model": [)" + transforms +
         R"(]}, "classes": {"MyModel": {"model_type": "my_model", "base_model_prefix": "model"}}})";
}

constexpr const char* kRename =
    R"({"type": "WeightRenaming", "source_patterns": ["^hub\\."], "target_patterns": ["memory."]})";
constexpr const char* kFused = R"({"type": "WeightConverter", "source_patterns": ["gate.weight", "up.weight"],
    "target_patterns": ["both.weight"], "operations": [{"op": "Concatenate", "dim": 0}]})";
constexpr const char* kExperts = R"({"type": "WeightConverter", "source_patterns": ["experts.*.w1.weight",
    "experts.*.w3.weight"], "target_patterns": ["experts.gate_up_proj"],
    "operations": [{"op": "MergeModulelist", "dim": 0}, {"op": "Concatenate", "dim": 1}]})";
constexpr const char* kRows = R"({"type": "WeightConverter", "source_patterns": ["hub_rows.weight"],
    "target_patterns": ["rows.weight"], "operations": [{"op": "Interleave", "dim": 0}]})";
constexpr const char* kChunk = R"({"type": "WeightConverter", "source_patterns": ["qk.weight"],
    "target_patterns": ["q.weight", "k.weight"], "operations": [{"op": "Chunk", "dim": 0}]})";

StateDictOptions Options(const std::string& transforms) {
  StateDictOptions options;
  options.config = kConfig;
  options.mapping.mapping_json = Mapping(transforms);
  options.on_unsupported = OnUnsupported::kFail;
  return options;
}

StateDictPlan Planned(std::vector<StateTensor> tensors, const StateDictOptions& options) {
  auto plan = PlanStateDict(std::move(tensors), options);
  if (plan) return std::move(*plan);
  ADD_FAILURE() << plan.errors()[0].ToString();
  return {};
}

std::vector<StateTensor> Nvfp4(const std::string& module, uint64_t out, uint64_t in) {
  return {{module + ".weight", DType::kU8, {out, in / 2}},
          {module + ".weight_scale", DType::kF8E4M3, {out, in / 16}},
          {module + ".weight_scale_2", DType::kF32, {}}};
}

// The series that a result belongs to, and its offset.
std::pair<const StateSeries*, uint64_t> ViewOf(const StateDictPlan& plan, const std::string& name) {
  const auto result = std::find(plan.names.begin(), plan.names.end(), name) - plan.names.begin();
  for (const StateSeries& series : plan.series) {
    const auto at = std::find(series.results.begin(), series.results.end(), static_cast<uint32_t>(result));
    if (at != series.results.end())
      return {&series, series.offset + static_cast<uint64_t>(at - series.results.begin()) * series.distance};
  }
  ADD_FAILURE() << name << " is no view";
  static const StateSeries none;
  return {&none, 0};
}

TEST(StateDictTest, AStackOfAnotherNumberOfExpertsThanItsConfigAndRouterHaveIsRefused) {
  StateDictOptions options = Options(kExperts);
  options.config = R"({"architectures": ["MyModel"], "model_type": "my_model", "num_experts": 3})";
  const auto plan = PlanStateDict(
      {{"mlp.experts.gate_up_proj", DType::kBF16, {2, 8, 4}}, {"mlp.gate.weight", DType::kBF16, {3, 4}}}, options);
  ASSERT_FALSE(plan.ok());
  EXPECT_THAT(plan.errors()[0].message, HasSubstr("there are 2 experts in mlp.experts, and num_experts is 3"));
}

TEST(StateDictTest, RenamedTensorsAreTheTensorsThemselves) {
  const auto plan = Planned({{"memory.b", DType::kBF16, {4}}, {"a", DType::kBF16, {2}}}, Options(kRename));
  EXPECT_THAT(plan.names, ElementsAre("hub.b", "a"));
  EXPECT_THAT(plan.whole, ElementsAre(0, 1));
  EXPECT_THAT(plan.series, IsEmpty());
  EXPECT_EQ(plan.report.outcome, RevertOutcome::kReverted);
  EXPECT_EQ(plan.report.renamed, 1U);
  EXPECT_EQ(plan.report.mapping, "private 1");
}

TEST(StateDictTest, PartsOfAFusedWeightAreRowsOfItAndItsScalarIsCopiedOnce) {
  const auto plan = Planned(Nvfp4("m.both", 8, 32), Options(kFused));
  EXPECT_THAT(plan.names, ElementsAre("m.gate.weight", "m.up.weight", "m.gate.weight_scale", "m.up.weight_scale",
                                      "m.gate.weight_scale_2", "m.up.weight_scale_2"));
  const auto [weight, offset] = ViewOf(plan, "m.up.weight");
  EXPECT_EQ(weight->tensor, 0U);
  EXPECT_EQ(offset, 64U);
  EXPECT_THAT(weight->shape, ElementsAre(4, 16));
  EXPECT_THAT(weight->strides, ElementsAre(16, 1));
  EXPECT_FALSE(weight->copied);
  EXPECT_EQ(ViewOf(plan, "m.up.weight_scale").second, 8U);
  EXPECT_THAT(plan.whole, ElementsAre(kNoTensor, kNoTensor, kNoTensor, kNoTensor, 2, 2));
  EXPECT_THAT(plan.copied, ElementsAre(5));
}

TEST(StateDictTest, ExpertsOfAStackAreOneSeries) {
  const auto plan = Planned({{"experts.gate_up_proj", DType::kU8, {256, 64, 16}},
                             {"experts.gate_up_proj_weight_scale", DType::kF8E4M3, {256, 64, 2}},
                             {"experts.gate_up_proj_weight_scale_2", DType::kF32, {256}}},
                            Options(kExperts));
  ASSERT_THAT(plan.series, SizeIs(4));
  EXPECT_THAT(plan.series[0].results, SizeIs(512));
  EXPECT_EQ(plan.series[0].distance, 32U * 16);
  EXPECT_EQ(ViewOf(plan, "experts.7.w3.weight").second, 7U * 64 * 16 + 32 * 16);
  // One scalar an expert, for two linears.
  EXPECT_THAT(plan.series[2].results, SizeIs(256));
  EXPECT_FALSE(plan.series[2].copied);
  EXPECT_THAT(plan.series[3].results, SizeIs(256));
  EXPECT_TRUE(plan.series[3].copied);
  EXPECT_THAT(plan.series[3].shape, IsEmpty());
  EXPECT_EQ(ViewOf(plan, "experts.9.w3.weight_scale_2").second, 9U);
}

TEST(StateDictTest, RowsThatAreMovedOneByOneAreFewBoxes) {
  const auto plan = Planned({{"rows.weight", DType::kBF16, {4096, 8}}}, Options(kRows));
  ASSERT_THAT(plan.joined, SizeIs(1));
  const StateArray& array = plan.joined[0].array;
  EXPECT_THAT(array.shape, ElementsAre(4096, 8));
  EXPECT_LE(array.boxes.size(), 2U);
  // Row 2i of the hub is row i in memory, row 2i + 1 is row 2048 + i.
  std::vector<uint64_t> from(4096 * 8, 0);
  for (const StateBox& box : array.boxes) {
    std::vector<uint64_t> index(box.dims.size(), 0);
    for (bool more = true; more;) {
      uint64_t source = box.from;
      uint64_t target = box.to;
      for (size_t dim = 0; dim < index.size(); ++dim) {
        source += index[dim] * box.dims[dim].from_stride;
        target += index[dim] * box.dims[dim].to_stride;
      }
      from.at(target) = source;
      more = false;
      for (size_t dim = index.size(); dim-- > 0 && !more;) {
        more = ++index[dim] < box.dims[dim].extent;
        if (!more) index[dim] = 0;
      }
    }
  }
  EXPECT_EQ(from[2 * 8], 1U * 8);
  EXPECT_EQ(from[5 * 8 + 3], 2050U * 8 + 3);
  EXPECT_EQ(from[4095 * 8 + 7], 4095U * 8 + 7);
}

TEST(StateDictTest, ResultsStandWhereTheFirstOfTheirTensorsStood) {
  const auto plan =
      Planned({{"k.weight", DType::kBF16, {2, 4}}, {"z", DType::kBF16, {1}}, {"q.weight", DType::kBF16, {2, 4}}},
              Options(kChunk));
  EXPECT_THAT(plan.names, ElementsAre("qk.weight", "z"));
  ASSERT_THAT(plan.joined, SizeIs(1));
  EXPECT_THAT(plan.joined[0].array.boxes, SizeIs(2));
}

std::vector<StateTensor> Parts() {
  std::vector<StateTensor> tensors = Nvfp4("q", 4, 32);
  for (StateTensor& tensor : Nvfp4("k", 4, 32)) tensors.push_back(std::move(tensor));
  return tensors;
}

TEST(StateDictTest, ScalarsOfWeightsThatBecomeOneAreToBeCompared) {
  const auto plan = Planned(Parts(), Options(kChunk));
  ASSERT_THAT(plan.checks, SizeIs(1));
  EXPECT_EQ(plan.checks[0].leaf, "weight_scale_2");
  EXPECT_EQ(plan.checks[0].a.boxes.at(0).tensor, 2U);
  EXPECT_EQ(plan.checks[0].b.boxes.at(0).tensor, 5U);
  const Errors errors = FailedChecks(plan, {0});
  EXPECT_THAT(errors[0].ToString(),
              HasSubstr("k.weight_scale_2: its weight_scale_2 differs from that of q.weight_scale_2"));
  EXPECT_FALSE(plan.keep_names(errors));
}

TEST(StateDictTest, FailedChecksKeepAllNamesWhereAskedFor) {
  StateDictOptions options = Options(kChunk);
  options.on_unsupported = OnUnsupported::kKeepNames;
  const auto plan = Planned(Parts(), options);
  const auto kept = plan.keep_names(FailedChecks(plan, {0}));
  ASSERT_TRUE(kept);
  EXPECT_THAT(kept->names, ElementsAre("q.weight", "q.weight_scale", "q.weight_scale_2", "k.weight", "k.weight_scale",
                                       "k.weight_scale_2"));
  EXPECT_THAT(kept->whole, ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_EQ(kept->report.outcome, RevertOutcome::kKeptNames);
  EXPECT_THAT(kept->report.unsupported, SizeIs(1));
  EXPECT_THAT(kept->report.warnings, SizeIs(1));
  EXPECT_THAT(kept->checks, IsEmpty());
  EXPECT_EQ(*kept->rewrite_references(R"({"exclude_modules": ["q"]})", "file"), R"({"exclude_modules": ["q"]})");
}

TEST(StateDictTest, WhatCannotBeCutKeepsAllNamesWhereAskedFor) {
  StateDictOptions options = Options(kFused);
  const std::vector<StateTensor> odd = {{"m.both.weight", DType::kBF16, {7, 4}}};
  EXPECT_FALSE(PlanStateDict(odd, options));
  options.on_unsupported = OnUnsupported::kKeepNames;
  const auto plan = Planned(odd, options);
  EXPECT_THAT(plan.names, ElementsAre("m.both.weight"));
  EXPECT_EQ(plan.report.outcome, RevertOutcome::kKeptNames);
}

std::string Scalar(float value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

TEST(StateDictTest, MergedScalesSayWhatBecomesOfEachCode) {
  StateDictOptions options = Options(kChunk);
  options.merge_scales = MergeScales::kMax;
  auto plan = Planned(Parts(), options);
  ASSERT_THAT(plan.merges, SizeIs(1));
  EXPECT_THAT(plan.merges[0].tensors, ElementsAre(2, 5));
  EXPECT_FALSE(MergeStateScalars(plan, {{Scalar(1), Scalar(-1)}}));
  const auto steps = MergeStateScalars(plan, {{Scalar(0.5), Scalar(0.25)}});
  ASSERT_TRUE(steps);
  ASSERT_THAT(*steps, SizeIs(plan.steps.size()));
  std::vector<std::array<uint64_t, 256>> counts(steps->size());
  for (size_t i = 0; i < steps->size(); ++i) {
    const StateStepResult& step = (*steps)[i];
    EXPECT_EQ(step.winner, 0U);
    if (step.merged) continue;
    const bool own = plan.steps[i].part == 0;
    EXPECT_EQ(step.code[0x38], own ? 0x38 : 0x30) << "1 becomes a half";
    counts[i][0x38] = 3;
    counts[i][0x01] = own ? 0 : 2;  // 2^-9, the least there is: half of it is rounded up, since no block may vanish
  }
  ReportRescaled(*steps, counts, &plan);
  ASSERT_THAT(plan.report.rescaled, SizeIs(1));
  EXPECT_EQ(plan.report.rescaled[0].name, "qk.weight_scale");
  EXPECT_EQ(plan.report.rescaled[0].elements, 8U);
  EXPECT_EQ(plan.report.rescaled[0].changed, 2U);
  EXPECT_DOUBLE_EQ(plan.report.rescaled[0].largest_relative, 1);
}

TEST(StateDictTest, ModulesAndReferencesOfConfigsAreMapped) {
  StateDictOptions options = Options(std::string(kRename) + "," + kFused);
  options.more["hf_quant_config.json"] = R"({"quantization": {"exclude_modules": ["memory.head"]}})";
  std::vector<StateTensor> tensors = Nvfp4("memory.both", 8, 32);
  tensors.push_back({"memory.head.weight", DType::kBF16, {2, 2}});
  const auto plan = Planned(tensors, options);
  EXPECT_EQ(plan.rename_module("memory.head"), "hub.head");
  EXPECT_EQ(plan.rename_module("memory.layers.7.gone"), "hub.layers.7.gone");
  EXPECT_THAT(plan.configs.at("hf_quant_config.json"), HasSubstr(R"("hub.head")"));
  const auto text = plan.rewrite_references(R"({"quantization": {"exclude_modules": ["memory.both"]}})", "file");
  ASSERT_TRUE(text);
  EXPECT_THAT(*text, HasSubstr("hub.gate"));
  EXPECT_THAT(*text, HasSubstr("hub.up"));
}

TEST(StateDictTest, AReferenceDecidesByNamesAloneOrWithShapes) {
  StateDictOptions options = Options(kChunk);
  options.mapping.mapping_json = Mapping(R"({"type": "WeightConverter", "source_patterns": ["q.weight", "k.weight"],
      "target_patterns": ["qk.weight"], "operations": [{"op": "Concatenate", "dim": 0}]})");
  options.reference_tensors = StateReference{
      {{"q.weight", DType::kBF16, {6, 4}}, {"k.weight", DType::kBF16, {2, 4}}, {"more", DType::kBF16, {1}}}, {}};
  const auto plan = Planned({{"qk.weight", DType::kBF16, {8, 4}}}, options);
  EXPECT_THAT(ViewOf(plan, "q.weight").first->shape, ElementsAre(6, 4));
  EXPECT_EQ(ViewOf(plan, "k.weight").second, 24U);
  EXPECT_THAT(plan.report.only_in_reference, ElementsAre("more"));
  EXPECT_THAT(plan.report.dropped, SizeIs(1));
  options.reference_tensors = StateReference{{}, {"q.weight", "k.weight"}};
  EXPECT_THAT(ViewOf(Planned({{"qk.weight", DType::kBF16, {8, 4}}}, options), "q.weight").first->shape,
              ElementsAre(4, 4));
  options.reference_tensors = StateReference{{}, {"other.weight"}};
  EXPECT_FALSE(PlanStateDict({{"qk.weight", DType::kBF16, {8, 4}}}, options));
}

TEST(StateDictTest, ShapesThatAreNotKnownAreNotHeldAgainstTheReference) {
  StateDictOptions options = Options(kRename);
  options.reference_tensors = StateReference{{{"hub.weight", DType::kBF16, {8, 8}}}, {}};
  const std::vector<StateTensor> packed = {{"memory.weight", DType::kBF16, {8, 4}}};
  EXPECT_FALSE(PlanStateDict(packed, options));
  options.shapes_known = false;
  EXPECT_THAT(Planned(packed, options).names, ElementsAre("hub.weight"));
}

TEST(StateDictTest, ValuesAloneAreNamed) {
  EXPECT_THAT(ValueNames({"a.weight", "a.weight_scale", "a.bias", "experts.up_proj", "experts.up_proj_weight_scale"}),
              UnorderedElementsAre("a.weight", "a.bias", "experts.up_proj"));
}

TEST(StateDictTest, TablesThatAreNoDictAreRefused) {
  const auto twice = PlanStateDict({{"a", DType::kU8, {1}}, {"a", DType::kU8, {2}}}, Options(kRename));
  ASSERT_FALSE(twice);
  EXPECT_EQ(twice.errors()[0].tensor, "a");
  EXPECT_FALSE(PlanStateDict({{"a", DType::kF32, {1ULL << 40, 1ULL << 40}}}, Options(kRename)));
}

TEST(StateDictTest, AMappingAsTextGoesWithNoOther) {
  StateDictOptions options = Options(kRename);
  options.mapping.transformers_version = "5.17.0";
  auto plan = PlanStateDict({}, options);
  ASSERT_FALSE(plan);
  EXPECT_EQ(plan.errors()[0].kind, ErrorKind::kInvalidMapping);
  options.mapping.transformers_version.reset();
  options.mapping.mapping_file = "mapping.json";
  EXPECT_FALSE(PlanStateDict({}, options));
  options = Options("{}");
  plan = PlanStateDict({}, options);
  ASSERT_FALSE(plan);
  EXPECT_EQ(plan.errors()[0].file, "the mapping given as text");
}

TEST(StateDictTest, TransformsOfALiveModelBringTheirScope) {
  const auto plan = Planned({{"model.tower.memory.x", DType::kBF16, {1}}, {"memory.x", DType::kBF16, {1}}},
                            Options(R"({"type": "WeightRenaming", "source_patterns": ["hub"],
                                "target_patterns": ["memory"], "scope_prefix": "tower", "base_model_prefix": "model"})"));
  EXPECT_THAT(plan.names, ElementsAre("model.tower.hub.x", "memory.x"));
}

}  // namespace
}  // namespace quantport
