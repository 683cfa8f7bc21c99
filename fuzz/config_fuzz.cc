// Config files: rewriting module references keeps a config readable and its exclude lists' meaning.
#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "check.h"
#include "config/references.h"
#include "dialect/dialect.h"

namespace quantport {
namespace {

using fuzz::Check;

// A model with a prefix that moves, a fused linear that is split, and an expert container that is renamed.
const std::map<std::string, std::vector<std::string>>& Modules() {
  static const std::map<std::string, std::vector<std::string>> kModules = {
      {"lm_head", {"lm_head"}},
      {"model.embed_tokens", {"language_model.model.embed_tokens"}},
      {"model.layers.0.mlp.gate_up_proj",
       {"language_model.model.layers.0.mlp.gate_proj", "language_model.model.layers.0.mlp.up_proj"}},
      {"model.layers.0.mlp.down_proj", {"language_model.model.layers.0.mlp.down_proj"}},
      {"model.layers.0.self_attn.q_proj", {"language_model.model.layers.0.self_attn.q_proj"}},
      {"model.layers.1.mlp.experts.0.down_proj", {"language_model.model.layers.1.block_sparse_moe.experts.0.w2"}},
      {"model.layers.1.mlp.experts.10.down_proj", {"language_model.model.layers.1.block_sparse_moe.experts.10.w2"}},
      {"model.layers.10.self_attn.q_proj", {"language_model.model.layers.10.self_attn.q_proj"}},
      {"visual.blocks.0", {"vision_tower.blocks.0"}},
      {"visual.blocks.0.norm", {"vision_tower.blocks.0.norm"}},
  };
  return kModules;
}

std::string Rename(const std::string& path) {
  for (const auto& [from, to] : {std::pair("model", "language_model.model"), std::pair("visual", "vision_tower")}) {
    if (path == from || path.starts_with(std::string(from) + ".")) return to + path.substr(std::string(from).size());
  }
  return path;
}

// The hub modules that a list speaks of, in one namespace or the other.
std::set<std::string> Meaning(const std::vector<std::string>& entries, bool in_memory) {
  std::vector<std::string> names;
  for (const auto& [module, hubs] : Modules()) {
    if (in_memory) {
      names.push_back(module);
    } else {
      names.insert(names.end(), hubs.begin(), hubs.end());
    }
  }
  const ModuleSet set(names);
  std::set<std::string> meaning;
  for (const std::string& entry : entries) {
    for (const uint32_t hit : set.Matches(entry)) {
      const std::string& name = set.names()[hit];
      if (!in_memory) meaning.insert(name);
      if (in_memory) meaning.insert(Modules().at(name).begin(), Modules().at(name).end());
    }
  }
  return meaning;
}

}  // namespace
}  // namespace quantport

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quantport;
  static const ReferenceRewriter rewriter(Modules(), Rename);
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto claims = ReadClaims(text, "fuzz");
  const auto rewritten = RewriteReferences(text, "fuzz", rewriter);
  Check(claims.ok() == rewritten.ok(), "what can be read can be rewritten");
  if (!claims || !*claims) return 0;
  const auto again = ReadClaims(*rewritten, "again");
  Check(again.ok() && *again, "a rewritten config can be read");
  const ConfigClaims& before = **claims;
  const ConfigClaims& after = **again;
  Check(after.method == before.method && after.algorithm == before.algorithm && after.otherwise == before.otherwise,
        "a rewritten config says the same of the quantization");
  std::vector<NamedModule> modules;
  for (const auto& [module, hubs] : Modules()) modules.push_back({module, ModuleClass::kLinear});
  for (const Claim& claim : MatchClaims(before, modules).modules)
    Check(claim.scheme < before.schemes.size() || claim.says == Says::kPlain || claim.says == Says::kNothing,
          "a claim has its scheme");
  Check(Meaning(before.excludes, true) == Meaning(after.excludes, false), "an exclude list keeps its meaning");
  return 0;
}
