// The tensors of a checkpoint, sorted into the layers of an engine.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "engine/facts.h"
#include "safetensors/table.h"

namespace quantport {

// One module of the hub, with the tensors below it by their leaves.
struct HubModule {
  std::map<std::string, const StoredTensor*, std::less<>> tensors;

  const StoredTensor* Find(std::string_view leaf) const {
    const auto it = tensors.find(leaf);
    return it == tensors.end() ? nullptr : it->second;
  }
  bool HasScales() const {
    for (const auto& [leaf, tensor] : tensors) {
      if (leaf != "weight" && leaf != "bias") return true;
    }
    return false;
  }
};

// A layer of the engine of which the checkpoint holds something.
struct StoredLayer {
  const LayerFacts* facts = nullptr;
  std::string prefix;                // with its numbers
  std::vector<std::string> numbers;  // of the prefix
  std::map<std::string, HubModule> modules;
  std::vector<std::string> missing;                   // modules of the hub that the layer holds as well
  std::vector<std::vector<const HubModule*>> groups;  // that share a parameter
  std::map<std::string, std::set<uint64_t>> experts;  // template of an expert's module -> the numbers that are there
};

struct StoredLayers {
  std::deque<StoredLayer> layers;
  std::vector<const StoredTensor*> left_over;        // that the engine has no place for
  std::vector<const StoredTensor*> quantized_plain;  // codes where the engine reads numbers
  std::vector<const StoredTensor*> cache_scales;
  std::set<uint64_t> blocks;  // numbers of the decoder's layers that hold anything
};

StoredLayers SortTensors(const TensorTable& table, const ArchitectureFacts& architecture);

}  // namespace quantport
