// What the checks of an engine find, on facts and tensors of a few lines. Whether the facts and the checks are the
// engines' own is held by tests/cli/engines_test.py.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/json.h"
#include "engine/check.h"

namespace quantport {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr const char* kFacts = R"({
  "engine": "vllm", "version": "1", "held": true,
  "methods": {
    "NVFP4": {
      "linear": {"weight": ["U8", ["out", "in/2"]], "weight_scale": ["F8_E4M3", ["out", "in/16"]],
                 "weight_scale_2": ["F32", []], "input_scale": ["F32", [], "optional"]},
      "experts": {"weight": ["U8", ["out", "in/2"]], "weight_scale": ["F8_E4M3", ["out", "in/16"]],
                  "weight_scale_2": ["F32", []]}},
    "FP8": {"linear": {"weight": ["F8_E4M3", ["out", "in"]], "weight_scale": ["F32", []]},
            "experts": {"refused": "no such experts"}},
    "MIXED_PRECISION": {},
    "INT8": {"linear": {"refused": "unheard of"}}},
  "architectures": {
    "TestForCausalLM": {
      "class": "Test", "mapper": null, "packed": {"qkv": ["q", "k"]}, "unknown": "raises", "cache_scales": "unread",
      "layers": [
        {"prefix": "layers.*.qkv", "kind": "linear", "parts": [["layers.*.q", "layers.*.k"]]},
        {"prefix": "layers.*.moe.experts", "kind": "experts", "parts":
          [["layers.*.mlp.experts.*.w1", "layers.*.mlp.experts.*.w3"], ["layers.*.mlp.experts.*.w2"]]},
        {"prefix": "layers.*.attn", "kind": "attention", "parts": []}],
      "plain": ["norm.weight"], "skipped": ["extra.weight"]},
    "RefusedForCausalLM": {"refused": "needs a GPU"}}})";

struct Stored {
  DType dtype;
  std::vector<uint64_t> shape;
};

class EngineTest : public testing::Test {
 protected:
  EngineTest() {
    AddNvfp4("layers.0.q");
    AddNvfp4("layers.0.k");
    tensors_["norm.weight"] = {DType::kBF16, {64}};
    Configure("NVFP4");
  }

  void AddNvfp4(const std::string& module) {
    tensors_[module + ".weight"] = {DType::kU8, {64, 16}};
    tensors_[module + ".weight_scale"] = {DType::kF8E4M3, {64, 2}};
    tensors_[module + ".weight_scale_2"] = {DType::kF32, {}};
  }

  void AddExperts(int count) {
    for (int i = 0; i < count; ++i) {
      for (const char* part : {"w1", "w2", "w3"}) AddNvfp4("layers.0.mlp.experts." + std::to_string(i) + "." + part);
    }
  }

  void Configure(const std::string& algorithm, std::vector<std::string> excludes = {}, uint64_t group_size = 16) {
    input_.configs.config = {{"architectures", {"TestForCausalLM"}},
                             {"num_hidden_layers", 1},
                             {"num_experts", 2},
                             {"quantization_config",
                              {{"quant_method", "modelopt"},
                               {"quant_algo", algorithm},
                               {"group_size", group_size},
                               {"ignore", std::move(excludes)}}}};
  }

  std::vector<EngineFinding> Check(const Engine& engine = kVllm) {
    TensorTable table;
    for (const auto& [name, stored] : tensors_) {
      StoredTensor& tensor = table.tensors.emplace_back();
      tensor.info.name = name;
      tensor.info.dtype = stored.dtype;
      tensor.info.shape = stored.shape;
    }
    input_.table = &table;
    input_.scalar = [&](const StoredTensor& tensor) -> std::optional<float> {
      const auto it = scalars_.find(tensor.info.name);
      return it == scalars_.end() ? 1.0F : it->second;
    };
    auto facts = ParseEngineFacts(kFacts, "facts");
    if (!facts) {
      ADD_FAILURE() << facts.errors()[0].ToString();
      return {};
    }
    return CheckEngine(engine, *facts, input_);
  }

  // The ids of what stops the checkpoint from being loaded whole.
  std::vector<std::string> Problems(const Engine& engine = kVllm) {
    std::vector<std::string> ids;
    for (const EngineFinding& finding : Check(engine)) {
      if (finding.problem) ids.push_back(finding.check);
    }
    return ids;
  }

  std::map<std::string, Stored> tensors_;
  std::map<std::string, float> scalars_;
  EngineInput input_;
};

TEST_F(EngineTest, FindsNothingWhereEverythingIsAsTheEngineReadsIt) {
  AddExperts(2);
  EXPECT_THAT(Check(), IsEmpty());
}

TEST_F(EngineTest, KnowsNoMoreThanItsFacts) {
  input_.configs.config["architectures"] = {"OtherForCausalLM"};
  EXPECT_THAT(Problems(), IsEmpty());
  EXPECT_THAT(Check()[0].reason, HasSubstr("no facts about this architecture"));
  input_.configs.config["architectures"] = {"RefusedForCausalLM"};
  EXPECT_THAT(Problems(), ElementsAre("architecture"));
}

TEST_F(EngineTest, RefusesAnAlgorithmThatTheEngineLacks) {
  Configure("INT8");
  const auto findings = Check();
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_EQ(findings[0].check, "algorithm");
  EXPECT_THAT(findings[0].reason, HasSubstr("unheard of"));
  Configure("INT3");
  EXPECT_THAT(Problems(), ElementsAre("algorithm"));
}

TEST_F(EngineTest, TellsWhichTensorsHaveNoPlace) {
  tensors_["model.layers.0.q.weight"] = {DType::kBF16, {64, 32}};
  tensors_["extra.weight"] = {DType::kBF16, {64}};  // skipped by the engine, as the hub has it
  const auto findings = Check();
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_EQ(findings[0].check, "left-over");
  EXPECT_EQ(findings[0].subject, "model.layers.0.q.weight");
}

TEST_F(EngineTest, FindsAMissingAndARenamedScale) {
  tensors_.erase("layers.0.q.weight_scale");
  EXPECT_THAT(Problems(), ElementsAre("missing-tensors"));
  tensors_["layers.0.q.weight_scale_inv"] = {DType::kF8E4M3, {64, 2}};
  EXPECT_THAT(Problems(), ElementsAre("missing-tensors", "left-over"));
}

TEST_F(EngineTest, FindsAMissingPartOfAFusedLayer) {
  for (const char* leaf : {"weight", "weight_scale", "weight_scale_2"})
    tensors_.erase(std::string("layers.0.k.") + leaf);
  const auto findings = Check();
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_EQ(findings[0].check, "missing-tensors");
  EXPECT_EQ(findings[0].subject, "layers.0.k");
}

TEST_F(EngineTest, TakesTheConfigsGroupSize) {
  Configure("NVFP4", {}, 32);
  EXPECT_THAT(Problems(), ElementsAre("group-size"));
}

TEST_F(EngineTest, HoldsDtypesAndShapesAgainstTheMethods) {
  tensors_["layers.0.q.weight_scale"].dtype = DType::kU8;
  EXPECT_THAT(Problems(), ElementsAre("form"));
  tensors_["layers.0.q.weight_scale"] = {DType::kF8E4M3, {64, 2}};
  tensors_["layers.0.q.weight_scale_2"].shape = {1};  // as good as []
  EXPECT_THAT(Problems(), IsEmpty());
  tensors_["layers.0.q.weight_scale_2"].shape = {64};
  EXPECT_THAT(Problems(), ElementsAre("form"));
}

TEST_F(EngineTest, WantsAllPartsOfAFusedLayerExcludedOrNone) {
  Configure("NVFP4", {"layers.0.q"});
  EXPECT_THAT(Problems(kVllm), ElementsAre("fused-parts"));
  EXPECT_THAT(Problems(kSglang), ElementsAre("fused-parts"));
  Configure("NVFP4", {"layers.0.q", "layers.0.k"});
  EXPECT_THAT(Problems(kVllm), ElementsAre("excluded"));
  EXPECT_THAT(Problems(kSglang), ElementsAre("excluded"));
}

TEST_F(EngineTest, MatchesEntriesAsEachEngineDoes) {
  const auto excluded = [&](const Engine& engine, const char* entry) {
    Configure("NVFP4", {entry});
    return Problems(engine) == std::vector<std::string>{"excluded"};
  };
  EXPECT_TRUE(excluded(kVllm, "0.qk"));     // any part of the text
  EXPECT_FALSE(excluded(kSglang, "0.qk"));  // whole segments
  EXPECT_TRUE(excluded(kVllm, "layers.0*"));
  EXPECT_TRUE(excluded(kSglang, "layers.0*"));
  EXPECT_FALSE(excluded(kVllm, "qk[v]x"));
  EXPECT_TRUE(excluded(kSglang, "qk*"));  // a glob of one segment
  EXPECT_FALSE(excluded(kVllm, "qk*"));
}

TEST_F(EngineTest, MatchesItsOwnPrefixAndNotTheHubsName) {
  AddExperts(2);
  Configure("NVFP4", {"layers.0.mlp.experts*"});
  EXPECT_THAT(Problems(), IsEmpty());
  Configure("NVFP4", {"layers.0.moe.experts*"});
  EXPECT_THAT(Problems(), ElementsAre("excluded"));
}

TEST_F(EngineTest, FindsPlainTensorsWhereItTakesALayerForQuantized) {
  tensors_ = {{"layers.0.q.weight", {DType::kBF16, {64, 32}}}, {"layers.0.k.weight", {DType::kBF16, {64, 32}}}};
  const auto findings = Check();
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_EQ(findings[0].check, "not-excluded");
  EXPECT_EQ(findings[0].subject, "layers.0.k and 1 others");
  EXPECT_THAT(findings[0].remedy, HasSubstr("\"layers.0.qkv\""));
}

TEST_F(EngineTest, CountsExperts) {
  AddExperts(1);
  const auto findings = Check();
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_EQ(findings[0].check, "experts");
  EXPECT_EQ(findings[0].subject, "layers.0.mlp.experts.1.w1 and 2 others");
}

TEST_F(EngineTest, CountsLayers) {
  input_.configs.config["num_hidden_layers"] = 2;
  EXPECT_THAT(Problems(), ElementsAre("missing-tensors"));
}

TEST_F(EngineTest, WantsOneGlobalScaleForWhatIsOneParameter) {
  AddExperts(2);
  scalars_["layers.0.k.weight_scale_2"] = 2.0F;
  EXPECT_THAT(Problems(kVllm), ElementsAre("shared-scales"));
  EXPECT_THAT(Problems(kSglang), ElementsAre("shared-scales"));
  scalars_ = {{"layers.0.mlp.experts.1.w3.weight_scale_2", 2.0F}};
  EXPECT_THAT(Problems(kVllm), ElementsAre("shared-scales"));
  EXPECT_THAT(Problems(kSglang), IsEmpty());
  scalars_ = {{"layers.0.mlp.experts.1.w2.weight_scale_2", 2.0F}};  // a parameter of its own
  EXPECT_THAT(Problems(kVllm), IsEmpty());
}

TEST_F(EngineTest, WantsExpertsThatTheEngineHasAMethodFor) {
  AddExperts(2);
  for (auto& [name, stored] : tensors_) {
    if (name.ends_with("_scale")) stored = {DType::kF32, {}};
    if (name.ends_with(".weight") && stored.dtype == DType::kU8) stored = {DType::kF8E4M3, {64, 32}};
  }
  std::erase_if(tensors_, [](const auto& tensor) { return tensor.first.ends_with("_scale_2"); });
  Configure("FP8");
  const auto findings = Check();
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_EQ(findings[0].check, "layer-method");
  EXPECT_THAT(findings[0].reason, HasSubstr("no such experts"));
}

TEST_F(EngineTest, TellsOfConfigsThatDisagree) {
  input_.configs.quant_config = {{"quantization", {{"quant_algo", "FP8"}, {"exclude_modules", Json::array()}}}};
  EXPECT_THAT(Problems(), ElementsAre("configs-agree"));
}

TEST_F(EngineTest, NotesScalesOfTheCacheThatNobodyReads) {
  tensors_["layers.0.k.k_scale"] = {DType::kF32, {}};
  const auto findings = Check();
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_EQ(findings[0].check, "cache-scales");
  EXPECT_FALSE(findings[0].problem);
}

TEST_F(EngineTest, ReadsAlgorithmsOfSingleLayers) {
  Configure("MIXED_PRECISION");
  input_.configs.config["quantization_config"]["quantized_layers"] = {{"layers.0.q", {{"quant_algo", "NVFP4"}}},
                                                                      {"layers.0.k", {{"quant_algo", "FP8"}}}};
  EXPECT_THAT(Problems(), ElementsAre("fused-parts"));
}

TEST(EngineFactsTest, RefusesWhatIsNoFileOfFacts) {
  for (const char* text :
       {"[]", "{}", R"({"engine": 1})",
        R"({"engine": "vllm", "version": "1", "methods": {"A": {"linear": {"w": ["U8", ["in/0"]]}}},
                               "architectures": {}})",
        R"({"engine": "vllm", "version": "1", "methods": {"A": {"linear": {"w": "U8"}}}, "architectures": {}})"}) {
    const auto facts = ParseEngineFacts(text, "facts.json");
    ASSERT_FALSE(facts) << text;
    EXPECT_EQ(facts.errors()[0].kind, ErrorKind::kInvalidMapping);
    EXPECT_EQ(facts.errors()[0].file, "facts.json");
  }
}

}  // namespace
}  // namespace quantport
