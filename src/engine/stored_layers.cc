#include "engine/stored_layers.h"

#include <algorithm>
#include <optional>
#include <unordered_map>
#include <unordered_set>

#include "base/text.h"

namespace quantport {
namespace {

bool IsCode(DType dtype) {
  return dtype == DType::kU8 || dtype == DType::kI8 || dtype == DType::kF8E4M3 || dtype == DType::kI32;
}

size_t CountStars(std::string_view text) { return static_cast<size_t>(std::count(text.begin(), text.end(), '*')); }

// Tables that an engine computes itself.
bool IsComputed(std::string_view name) {
  for (const std::string_view tail :
       {"rotary_emb.inv_freq", "rotary_pos_emb.inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached"}) {
    if (name.ends_with(tail)) return true;
  }
  return false;
}

class Sorter {
 public:
  explicit Sorter(const ArchitectureFacts& architecture)
      : plain_(architecture.plain.begin(), architecture.plain.end()),
        skipped_(architecture.skipped.begin(), architecture.skipped.end()) {
    for (const LayerFacts& layer : architecture.layers) {
      for (const auto& group : layer.parts) {
        for (const std::string& part : group) part_of_.emplace(part, &layer);
      }
    }
  }

  StoredLayers Run(const TensorTable& table) {
    for (const StoredTensor& tensor : table.tensors) Place(tensor);
    for (StoredLayer& layer : sorted_.layers) Complete(&layer);
    return std::move(sorted_);
  }

 private:
  void Place(const StoredTensor& tensor) {
    const std::string& name = tensor.info.name;
    const NameTemplate whole = TemplateOf(name);
    const auto [module, leaf] = SplitLeaf(name);
    NoteBlock(name);
    if (leaf == "k_scale" || leaf == "v_scale") {
      sorted_.cache_scales.push_back(&tensor);
      return;
    }
    const NameTemplate below = TemplateOf(module);
    if (const auto part = part_of_.find(below.text); part != part_of_.end() && IsOfLayer(leaf, whole.text)) {
      LayerOf(*part->second, below.numbers).modules[std::string(module)].tensors[std::string(leaf)] = &tensor;
      return;
    }
    if (plain_.contains(whole.text)) {
      if (IsCode(tensor.info.dtype)) sorted_.quantized_plain.push_back(&tensor);
      return;
    }
    if (skipped_.contains(whole.text) || IsComputed(name)) return;
    sorted_.left_over.push_back(&tensor);
  }

  // A bias is the layer's where the engine has one there.
  bool IsOfLayer(std::string_view leaf, const std::string& whole) const {
    return leaf != "bias" || plain_.contains(whole);
  }

  StoredLayer& LayerOf(const LayerFacts& facts, const std::vector<std::string>& numbers) {
    const size_t stars = std::min(CountStars(facts.prefix), numbers.size());
    std::vector<std::string> own(numbers.begin(), numbers.begin() + static_cast<std::ptrdiff_t>(stars));
    std::string prefix = FillTemplate(facts.prefix, own);
    const auto [it, added] = layers_.emplace(prefix, nullptr);
    if (added) {
      sorted_.layers.push_back({&facts, std::move(prefix), std::move(own), {}, {}, {}, {}});
      it->second = &sorted_.layers.back();
    }
    return *it->second;
  }

  // What the layer lacks, what shares a parameter in it, and which experts there are.
  static void Complete(StoredLayer* layer) {
    std::map<std::string, std::vector<const std::string*>> by_template;
    for (const auto& [module, tensors] : layer->modules) by_template[TemplateOf(module).text].push_back(&module);
    const size_t stars = CountStars(layer->facts->prefix);
    for (const auto& group : layer->facts->parts) {
      std::map<std::string, std::vector<const HubModule*>> sharing;  // by the numbers beyond the prefix's
      for (const std::string& part : group) {
        const auto found = by_template.find(part);
        if (found == by_template.end()) continue;
        for (const std::string* module : found->second) {
          const std::vector<std::string> numbers = TemplateOf(*module).numbers;
          const std::string expert = numbers.size() > stars ? numbers.back() : "";
          sharing[expert].push_back(&layer->modules.at(*module));
          if (IsDigits(expert) && expert.size() < 10) layer->experts[part].insert(std::stoull(expert));
        }
      }
      for (auto& [expert, modules] : sharing) layer->groups.push_back(std::move(modules));
    }
    NoteMissing(by_template, stars, layer);
  }

  // Parts come in forms, as experts do that are one tensor or many: what is asked for are the parts beside those that
  // are there and of their form.
  static void NoteMissing(const std::map<std::string, std::vector<const std::string*>>& present, size_t stars,
                          StoredLayer* layer) {
    std::set<size_t> forms;
    for (const auto& [part, modules] : present) forms.insert(CountStars(part));
    for (const auto& group : layer->facts->parts) {
      for (const std::string& part : group) {
        if (present.contains(part) || !forms.contains(CountStars(part))) continue;
        if (CountStars(part) == stars) {
          layer->missing.push_back(FillTemplate(part, layer->numbers));
        } else {
          layer->experts[part];
        }
      }
    }
  }

  void NoteBlock(const std::string& name) {
    constexpr std::string_view kLayers = "layers.";
    if (name.find("visi") != std::string::npos || name.find("audio") != std::string::npos) return;
    size_t at = name.find(kLayers);
    if (at == std::string::npos || (at > 0 && name[at - 1] != '.')) return;
    at += kLayers.size();
    const std::string number = name.substr(at, name.find('.', at) - at);
    if (IsDigits(number) && number.size() < 10) sorted_.blocks.insert(std::stoull(number));
  }

  std::unordered_set<std::string> plain_, skipped_;
  std::unordered_map<std::string, const LayerFacts*> part_of_;
  std::unordered_map<std::string, StoredLayer*> layers_;
  StoredLayers sorted_;
};

}  // namespace

StoredLayers SortTensors(const TensorTable& table, const ArchitectureFacts& architecture) {
  return Sorter(architecture).Run(table);
}

}  // namespace quantport
