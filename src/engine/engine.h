// How an engine reads the configs of a checkpoint and matches their entries. One file an engine; the table is in
// engines.cc, and what can be found out by asking an engine is data (facts.h).
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "engine/facts.h"
#include "quantport/engine.h"

namespace quantport {

// The configs of a checkpoint that speak of a quantization; null where there is none.
struct QuantizationConfigs {
  Json config;        // config.json, the whole
  Json quant_config;  // hf_quant_config.json
};

// What the engine takes from the configs.
struct EngineQuantization {
  std::string file;       // the config that counts
  std::string algorithm;  // as EngineFacts::methods calls it; "" for an unquantized checkpoint
  uint64_t group_size = 0;
  std::vector<std::string> excludes;          // renamed as the engine does
  std::map<std::string, std::string> layers;  // with several algorithms: the module, renamed, and its algorithm
  bool mixed = false;
  bool known = true;  // the producer is one that the checks here know
};

// How the engine treats one layer.
struct LayerDecision {
  std::string algorithm;  // "" for an unquantized layer
  std::string fault;      // the engine refuses: parts of a fused layer are treated differently
};

struct Engine {
  std::string_view name;   // as --engine has it
  std::string_view title;  // as its makers write it
  EngineQuantization (*read)(const QuantizationConfigs& configs, const ArchitectureFacts& architecture,
                             std::vector<EngineFinding>* findings);
  LayerDecision (*decide)(const EngineQuantization& quantization, const ArchitectureFacts& architecture, LayerKind kind,
                          const std::string& prefix);
  bool experts_share_scale;  // w1 and w3 of an expert are served with one global scale; linears' parts always are
};

extern const Engine kVllm;
extern const Engine kSglang;
extern const Engine kTensorRtLlm;

// Null where there is none of that name.
const Engine* FindEngine(std::string_view name);
// "sglang, tensorrt-llm, vllm"
std::string EngineNames();

// ---- what several engines do alike -------------------------------------------------------------------------------

// The object of config.json that describes a quantization, where the engines look for it: its own, the text model's,
// or under compressed-tensors' old name. Null where there is none.
const Json* FindQuantization(const Json& config);
// A member as text, "" where it is missing or something else.
std::string TextOf(const Json& object, const char* key);
std::vector<std::string> TextsOf(const Json& object, const char* key);
uint64_t NumberOf(const Json& object, const char* key);
std::string UpperCase(std::string_view text);
std::string LastSegment(std::string_view prefix);

// The parts of a fused layer, in the entries that name them: `match` tells whether an entry names a part. A fault where
// some parts are named and others not.
struct PartsNamed {
  bool all = false;
  std::string fault;
};
PartsNamed PartsExcluded(const std::string& prefix, const std::vector<std::string>& parts,
                         const std::vector<std::string>& entries,
                         bool (*match)(const std::string& entry, const std::string& part));

// The algorithm of a layer among those that a config lists by module: its own name's, its parts', or that of a module
// below it. A fault where parts have different ones.
LayerDecision ListedAlgorithm(const std::map<std::string, std::string>& layers, const ArchitectureFacts& architecture,
                              const std::string& prefix, const std::vector<std::string>& candidates);

}  // namespace quantport
