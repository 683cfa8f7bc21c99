// The modules that a hub checkpoint is in memory, and their order.
#include "plan/memory_modules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quantport {
namespace {

using testing::ElementsAre;

// The names of the modules of these weights, in the order found.
std::vector<std::string> Modules(const std::vector<std::string>& modules) {
  TensorTable table;
  table.shards.resize(1);
  for (const std::string& module : modules) {
    const uint64_t begin = table.tensors.size() * 32;
    table.tensors.push_back({{module + ".weight", DType::kBF16, {4, 4}, begin, begin + 32}, 0});
  }
  const auto units = RecognizeUnits(table, {});
  if (!units) return {units.errors()[0].ToString()};
  const auto model = FindMemoryModules({&table, &*units, nullptr, {}});
  if (!model) return {model.errors()[0].ToString()};
  std::vector<std::string> names;
  for (const MemoryModule& module : model->modules) names.push_back(module.module.name);
  return names;
}

// ModelOpt lists modules in the order in which models create them: config files are compared with its own.
TEST(MemoryModulesTest, ChildrenThatNoModelIsKnownForStandBetweenABlocksGateAndItsExperts) {
  EXPECT_THAT(Modules({"b.mlp.experts.0.up_proj", "b.mlp.zeta", "b.mlp.gate", "b.mlp.alpha",
                       "b.mlp.shared_expert.up_proj", "b.norm", "b.cross.q", "b.self_attn.out", "a.x"}),
              ElementsAre("a.x", "b.self_attn", "b.self_attn.out", "b.mlp.gate", "b.mlp.alpha", "b.mlp.zeta",
                          "b.mlp.experts.0.up_proj", "b.mlp.shared_expert.up_proj", "b.cross.q", "b.norm"));
}

TEST(MemoryModulesTest, LayersAndExpertsAreInTheOrderOfTheirNumbers) {
  EXPECT_THAT(Modules({"layers.10.mlp.up_proj", "layers.9.mlp.down_proj", "layers.9.mlp.gate_proj", "lm_head",
                       "layers.9.self_attn.q_proj", "embed_tokens"}),
              ElementsAre("embed_tokens", "layers.9.self_attn", "layers.9.self_attn.q_proj", "layers.9.mlp.gate_proj",
                          "layers.9.mlp.down_proj", "layers.10.mlp.up_proj", "lm_head"));
}

}  // namespace
}  // namespace quantport
