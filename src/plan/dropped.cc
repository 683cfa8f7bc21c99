#include "plan/dropped.h"

#include <algorithm>
#include <array>

#include "base/text.h"
#include "mapping/renamer.h"
#include "plan/draft_layers.h"

namespace quantport {
namespace {

// Leaves of tensors that models compute for themselves: rotary frequencies, position numbers, causal masks.
constexpr std::array<std::string_view, 7> kBufferLeaves = {
    "inv_freq", "position_ids", "masked_bias", "causal_mask", "token_type_ids", "cos_cached", "sin_cached"};

template <size_t N>
bool IsOneOf(const std::array<std::string_view, N>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// GPT-2's attention mask is called "attn.bias", beside projections of their own.
bool IsBuffer(std::string_view key) {
  const auto [module, leaf] = SplitLeaf(key);
  return IsOneOf(kBufferLeaves, leaf) || (leaf == "bias" && SplitLeaf(module).leaf == "attn");
}

DroppedKind Classify(const Dropped& dropped, const ResolvedModel& model, const DraftLayers& drafts) {
  const bool tied =
      std::find(model.tied_weights.begin(), model.tied_weights.end(), dropped.in_memory) != model.tied_weights.end();
  if (tied && model.tie_word_embeddings.value_or(true)) return DroppedKind::kTied;
  if (!drafts.PathOf(dropped.key).empty()) return DroppedKind::kMtp;
  return IsBuffer(dropped.key) ? DroppedKind::kBuffer : DroppedKind::kOther;
}

}  // namespace

std::string_view DroppedKindName(DroppedKind kind) {
  switch (kind) {
    case DroppedKind::kTied:
      return "tied";
    case DroppedKind::kBuffer:
      return "buffer";
    case DroppedKind::kMtp:
      return "mtp";
    case DroppedKind::kOther:
      return "other";
  }
  return "";
}

Result<std::vector<Dropped>> ClassifyDropped(const std::vector<std::string>& keys, const ResolvedModel& model) {
  auto load = Renamer::Create(model.transforms, Renamer::Direction::kLoad);
  if (!load) return load.errors();
  const DraftLayers drafts(model);
  std::vector<Dropped> dropped;
  for (const std::string& key : keys) {
    Dropped entry{key, load->Probe(key).name, DroppedKind::kOther};
    entry.kind = Classify(entry, model, drafts);
    dropped.push_back(std::move(entry));
  }
  return dropped;
}

}  // namespace quantport
