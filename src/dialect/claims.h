// What a config file says of the modules of a checkpoint: which are quantized, and how their weights are stored.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "format/format.h"
#include "quantport/error.h"

namespace quantport {

// How the weights of some modules are stored, in a config's words.
struct WeightScheme {
  std::string name;                                  // as the config calls it
  std::vector<FormatId> formats = {};                // what the name can mean; empty where that is not known
  uint64_t group_size = 0;                           // values that share a scale; 0: not said
  uint64_t bits = 0;                                 // of packed integers; 0: not said
  std::optional<std::array<uint64_t, 2>> tile = {};  // rows and columns that share a scale
  std::optional<Granularity> shares = {};            // what shares a scale, where that is said by name
  bool ordered_groups = false;                       // GPTQ: column i is of group i / group_size
  bool zeros_less_one = false;                       // GPTQ before its second format
};

enum class Says : uint8_t {
  kNothing,
  kPlain,
  kQuantized,
  kEither,  // may be left unquantized; else quantized by the scheme
};

// How an entry of a config is held against the name of a module.
enum class Matching : uint8_t {
  kExact,        // the whole name
  kBelow,        // a module above
  kGlob,         // Python's fnmatchcase on the whole name
  kRegexStart,   // Python's re.match
  kRegexSearch,  // Python's re.search
  kSegments,     // transformers' should_convert_module on whole segments: at the beginning, at the end, or all of it;
                 // entries with special characters are regular expressions for the beginning
  kEnd,          // the last segments, or all of it
  kClass,        // the name of a module class
};

// What an entry says of the modules that it matches.
struct Rule {
  std::string entry;  // as it stands in the file, "re:" included
  Matching matching = Matching::kExact;
  Says says = Says::kPlain;
  uint32_t scheme = 0;  // of the schemes; without a meaning for kPlain and kNothing
};

// What one config file says. Where several rules match a module, the first counts.
struct ConfigClaims {
  std::string method;     // the dialect's name: "modelopt", "compressed-tensors", "gptq", ...
  std::string algorithm;  // for people, "" where unknown
  std::vector<WeightScheme> schemes;
  std::vector<Rule> rules;
  Says otherwise = Says::kNothing;  // of linears that no rule matches
  uint32_t default_scheme = 0;
  bool convolutions = false;  // `otherwise` speaks of convolutions and fused experts as well
  bool decoder_only = false;  // `otherwise` speaks of the numbered blocks of a model only
  bool partial = false;       // the checkpoint's other config is right about no more than these rules' own modules
  std::vector<std::string> excludes = {};  // the exclude list as it stands in the file
};

// What a module is, as far as its tensors tell.
enum class ModuleClass : uint8_t { kLinear, kConvolution, kEmbedding, kExperts, kOther };

struct NamedModule {
  std::string_view name;
  ModuleClass kind = ModuleClass::kLinear;
};

struct Claim {
  Says says = Says::kNothing;
  uint32_t scheme = 0;         // index into ConfigClaims::schemes, for kQuantized and kEither
  const Rule* rule = nullptr;  // which decided; null: none did
};

struct MatchedClaims {
  std::vector<Claim> modules;      // for each of the modules
  std::vector<bool> rule_matches;  // for each rule: it matches some module, decisive or not
};

struct MatchBudget;

// What `claims` says of each module. Linear in modules and entries where entries are names; a pattern is tried on all
// modules that begin with its literal beginning. `claims` must outlive the result. Errors: kInvalidConfig naming the
// entry that takes too long, kCancelled.
Result<MatchedClaims> MatchClaims(const ConfigClaims& claims, std::span<const NamedModule> modules,
                                  MatchBudget* budget);

// Whether producers leave a module of this name unquantized without saying so: output heads, routers, what projects
// a draft model's inputs, and towers for images and sound.
bool IsUsuallyLeftAlone(std::string_view module);

}  // namespace quantport
