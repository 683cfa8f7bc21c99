// Whether an engine loads a checkpoint whole: what it reads, held against what is stored.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "safetensors/table.h"

namespace quantport {

struct EngineInput {
  QuantizationConfigs configs;
  const TensorTable* table = nullptr;
  // The value of a tensor of one F32; nothing where it can't be read.
  std::function<std::optional<float>(const StoredTensor&)> scalar;
};

// What is found, in the order of the checks (docs/engines.md lists them); a finding for each check and reason, naming
// the first that it concerns and how many others there are.
std::vector<EngineFinding> CheckEngine(const Engine& engine, const EngineFacts& facts, const EngineInput& input);

}  // namespace quantport
