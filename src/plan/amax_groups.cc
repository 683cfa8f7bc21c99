#include "plan/amax_groups.h"

#include <array>
#include <map>
#include <numeric>

#include "base/text.h"

namespace quantport {
namespace {

// Linears below one module that see the same input, by what they are called there. The indexers of DeepSeek-V3.2 and
// GLM-5, and DeepSeek-V4's compressors, see what their attention's projections see.
struct Sibling {
  std::string_view name;
  std::string_view family;
};
constexpr std::array<Sibling, 35> kSiblings = {{{"compressor.indexer.scorer.weights_proj", "qkv"},
                                                {"compressor.indexer.kv_proj", "qkv"},
                                                {"compressor.indexer.gate_proj", "qkv"},
                                                {"compressor.indexer.q_b_proj", "q_b"},
                                                {"compressor.kv_proj", "qkv"},
                                                {"compressor.gate_proj", "qkv"},
                                                {"indexer.wk", "qkv"},
                                                {"indexer.weights_proj", "qkv"},
                                                {"indexer.wq_b", "q_b"},
                                                {"q_b_proj", "q_b"},
                                                {"q_proj", "qkv"},
                                                {"k_proj", "qkv"},
                                                {"v_proj", "qkv"},
                                                {"q_a_proj", "qkv"},
                                                {"kv_a_proj_with_mqa", "qkv"},
                                                {"kv_proj", "qkv"},
                                                {"query", "qkv"},
                                                {"key", "qkv"},
                                                {"value", "qkv"},
                                                {"wq", "qkv"},
                                                {"wk", "qkv"},
                                                {"wv", "qkv"},
                                                {"gate_proj", "gate_up"},
                                                {"up_proj", "gate_up"},
                                                {"w1", "gate_up"},
                                                {"w3", "gate_up"},
                                                {"in_proj_qkv", "in"},
                                                {"in_proj_qkvz", "in"},
                                                {"in_proj_ba", "in"},
                                                {"in_proj_z", "in"},
                                                {"in_proj_a", "in"},
                                                {"in_proj_b", "in"},
                                                {"wq_a", "qkv"},
                                                {"wkv_a", "qkv"},
                                                {"wkv", "qkv"}}};

// FP8 tiles of which there is only one: its scale is of the largest magnitude of all of it.
bool IsSingleTile(const PlannedMatrix& matrix) {
  return matrix.scalar && matrix.target.encoding.format == FormatId::kFp8Block;
}

class DisjointSets {
 public:
  explicit DisjointSets(size_t size) : parents_(size) { std::iota(parents_.begin(), parents_.end(), size_t{0}); }

  size_t Find(size_t i) {
    while (parents_[i] != i) i = parents_[i] = parents_[parents_[i]];
    return i;
  }
  void Join(size_t a, size_t b) { parents_[Find(b)] = Find(a); }

 private:
  std::vector<size_t> parents_;
};

}  // namespace

std::string SharedInputOf(const std::string& module) {
  for (const auto& [leaf, family] : kSiblings) {
    if (!module.ends_with(leaf)) continue;
    std::string_view parent = std::string_view(module).substr(0, module.size() - leaf.size());
    if (!parent.empty() && !parent.ends_with('.')) continue;
    if (!parent.empty()) parent.remove_suffix(1);
    // Keys and values of a cross attention come from elsewhere than its queries.
    const bool cross = parent.find("cross") != std::string_view::npos || parent.ends_with("encoder_attn");
    if (cross && (leaf.starts_with("q") || leaf == "wq")) return {};
    return std::string(parent) + "|" + std::string(family);
  }
  return {};
}

uint32_t GroupByAmax(const MemoryModel& memory, const std::vector<size_t>& matrix_of,
                     std::vector<PlannedMatrix>* matrices) {
  DisjointSets sets(matrices->size());
  std::map<MemoryPlace, size_t> by_place;
  std::map<std::string, size_t> by_family;
  for (size_t i = 0; i < matrices->size(); ++i) {
    const PlannedMatrix& matrix = (*matrices)[i];
    if (!matrix.scalar || matrix_of[i] == SIZE_MAX) continue;
    for (const MemoryPlace& place : memory.matrices[matrix_of[i]].places) {
      // Tiles of an expert's gate and up are its own, whatever their number.
      if (!IsSingleTile(matrix) || place.projection.empty()) {
        const auto [same, fresh] = by_place.emplace(place, i);
        if (!fresh) sets.Join(same->second, i);
      }
      const std::string family =
          place.projection.empty() ? SharedInputOf(memory.modules[place.module].module.name) : "";
      if (family.empty() || matrix.target.encoding.format == FormatId::kFp8PerTensor) continue;
      const std::string key = family + "|" + std::to_string(static_cast<int>(matrix.target.encoding.format)) + "|" +
                              std::to_string(matrix.target.encoding.block);
      const auto [sibling, first] = by_family.emplace(key, i);
      if (!first) sets.Join(sibling->second, i);
    }
  }
  std::map<size_t, uint32_t> numbers;
  for (size_t i = 0; i < matrices->size(); ++i) {
    if (!(*matrices)[i].scalar) continue;
    const auto [number, fresh] = numbers.emplace(sets.Find(i), static_cast<uint32_t>(numbers.size()));
    (*matrices)[i].group = number->second;
  }
  return static_cast<uint32_t>(numbers.size());
}

}  // namespace quantport
