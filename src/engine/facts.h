// What an engine does with a checkpoint's names, as data: a file of data/engines, made by asking the engine itself
// (tools/make_engine_facts.py; docs/engines.md describes the file).
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "quantport/dtype.h"
#include "quantport/error.h"

namespace quantport {

// A size of a stored tensor in terms of its layer's: outputs, inputs, or a share of either.
struct SizeRule {
  enum class Of : uint8_t { kOne, kOutputs, kInputs } of = Of::kOne;
  uint64_t divisor = 1;
};

// A tensor that a layer of some quantization method reads below each of its modules.
struct LeafFacts {
  std::string leaf;
  DType dtype = DType::kU8;
  std::vector<SizeRule> shape;  // empty: one number, stored as [] or [1]
  bool optional = false;        // has a place, and is not used
};

struct MethodFacts {
  std::string refused;  // why the engine has no such method for this kind of layer; "" where it has
  std::vector<LeafFacts> leaves;
};

enum class LayerKind : uint8_t { kLinear, kExperts };

// A layer that the engine can quantize. Names are templates, with * for every number.
struct LayerFacts {
  std::string prefix;  // as the engine calls it where it holds exclude entries against it
  LayerKind kind = LayerKind::kLinear;
  // The hub's modules that it holds, those that share a parameter together: {q, k, v}, or {w1, w3}, {w2}.
  std::vector<std::vector<std::string>> parts;
};

// Renamings of module references, in the engine's order.
struct NameMapper {
  using Pairs = std::vector<std::pair<std::string, std::string>>;
  Pairs substr;
  Pairs prefix;
  Pairs suffix;
};

struct ArchitectureFacts {
  std::string class_name;   // the engine's
  std::string refused;      // why it can't be loaded at all
  bool has_mapper = false;  // the class renames module references of configs
  NameMapper mapper;
  std::map<std::string, std::vector<std::string>> packed;  // fused module -> its parts, by their last segments
  bool raises_unknown = true;  // on a tensor that it has no place for; else it is skipped without a word
  bool reads_cache_scales = true;
  std::vector<LayerFacts> layers;
  std::vector<std::string> plain;    // tensors that are read as they are, as templates
  std::vector<std::string> skipped;  // and that the hub has and the engine leaves out
};

struct EngineFacts {
  std::string engine;
  std::string version;
  bool held = true;  // by running the engine; else from reading its source
  std::map<std::string, std::map<LayerKind, MethodFacts>> methods;
  std::map<std::string, ArchitectureFacts> architectures;
};

// `name` with every number between dots as *, and the numbers.
struct NameTemplate {
  std::string text;
  std::vector<std::string> numbers;
};
NameTemplate TemplateOf(std::string_view name);
// The other way: the first numbers in the places of the *.
std::string FillTemplate(std::string_view text, const std::vector<std::string>& numbers);

// Errors: kInvalidMapping naming `file`.
Result<EngineFacts> ParseEngineFacts(std::string_view text, std::string_view file);

}  // namespace quantport
