// Config files: rewriting module references keeps a config readable and its exclude lists' meaning.
#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

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

// The hub modules that a config leaves unquantized, in one namespace or the other.
struct Meaning {
  std::set<std::string> modules;
  std::vector<Rule> dead;  // that match nothing
};

std::vector<std::string> HubNames() {
  std::vector<std::string> names;
  for (const auto& [module, hubs] : Modules()) names.insert(names.end(), hubs.begin(), hubs.end());
  return names;
}

std::vector<std::string> MemoryNames() {
  std::vector<std::string> names;
  for (const auto& [module, hubs] : Modules()) names.push_back(module);
  return names;
}

Meaning MeaningOf(const std::vector<Rule>& rules, bool in_memory) {
  const ModuleNames set(in_memory ? MemoryNames() : HubNames());
  MatchBudget budget;
  Meaning meaning;
  for (const Rule& rule : rules) {
    if (rule.says != Says::kPlain) continue;
    const auto hits = set.Matches(rule.entry, rule.matching, &budget);
    if (!hits || hits->empty()) meaning.dead.push_back(rule);
    if (!hits) continue;
    for (const uint32_t hit : *hits) {
      const std::string& name = set.names()[hit];
      if (!in_memory) meaning.modules.insert(name);
      if (in_memory) meaning.modules.insert(Modules().at(name).begin(), Modules().at(name).end());
    }
  }
  return meaning;
}

bool IsTooLong(const Errors& errors) {
  return std::any_of(errors.begin(), errors.end(), [](const Error& error) {
    return error.message.find(" steps to hold against ") != std::string::npos;
  });
}

}  // namespace
}  // namespace quantport

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quantport;
  static ReferenceRewriter rewriter(Modules(), Rename);
  MatchBudget budget;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto claims = ReadClaims(text, "fuzz");
  const auto rewritten = RewriteReferences(text, "fuzz", &rewriter, &budget);
  if (!rewritten && IsTooLong(rewritten.errors())) return 0;
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
  const auto matched = MatchClaims(before, modules, &budget);
  if (!matched) return 0;
  for (const Claim& claim : matched->modules)
    Check(claim.scheme < before.schemes.size() || claim.says == Says::kPlain || claim.says == Says::kNothing,
          "a claim has its scheme");
  const Meaning in_memory = MeaningOf(before.rules, true);
  const Meaning hub = MeaningOf(after.rules, false);
  Check(std::includes(hub.modules.begin(), hub.modules.end(), in_memory.modules.begin(), in_memory.modules.end()),
        "an exclude list keeps its meaning");
  // An entry without a module in memory may be the hub's already.
  const Meaning kept = MeaningOf(in_memory.dead, false);
  for (const std::string& name : hub.modules)
    Check(in_memory.modules.contains(name) || kept.modules.contains(name), "an exclude list gets no new meaning");
  return 0;
}
