#include <algorithm>
#include <array>
#include <unordered_set>

#include "dialect/claims.h"

namespace quantport {
namespace {

// Engines build these without a quantization whatever a config says, and lists of published checkpoints often leave
// them out: Kimi-K2.5's has nothing of its vision tower, DeepSeek-V3's configs have no list at all.

// Names of the module itself.
constexpr std::array<std::string_view, 12> kModules = {"lm_head",
                                                       "head",
                                                       "embed_out",
                                                       "output_layer",
                                                       "score",
                                                       "classifier",  // output heads
                                                       "eh_proj",
                                                       "e_proj",
                                                       "h_proj",        // inputs of a draft model
                                                       "weights_proj",  // DeepSeek-V3.2's indexer
                                                       "shared_expert_gate",
                                                       "output"};

// Names of it, or of a module above: routers, and towers for images and sound with what joins them to the text model.
const std::unordered_set<std::string_view>& Paths() {
  static const std::unordered_set<std::string_view> kPaths = {"gate",
                                                              "router",
                                                              "vision_tower",
                                                              "visual",
                                                              "vision_model",
                                                              "vision_encoder",
                                                              "vision",
                                                              "vit",
                                                              "image_encoder",
                                                              "vpm",
                                                              "vqmodel",
                                                              "audio_tower",
                                                              "audio_model",
                                                              "audio_encoder",
                                                              "audio",
                                                              "speech_encoder",
                                                              "mm_projector",
                                                              "multi_modal_projector",
                                                              "embed_vision",
                                                              "embed_audio",
                                                              "vision_embed_tokens",
                                                              "resampler",
                                                              "patch_merge_mlp",
                                                              "aligner",
                                                              "merger",
                                                              "connector",
                                                              "modality_projection",
                                                              "compressor",
                                                              "mtp_linear_proj"};
  return kPaths;
}

template <size_t N>
bool Holds(const std::array<std::string_view, N>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

bool IsUsuallyLeftAlone(std::string_view module) {
  const std::string_view own = module.substr(module.rfind('.') + 1);
  if (Holds(kModules, own)) return true;
  // Qwen3-Next's and Qwen3.5's.
  if (module == "mtp.fc" || module.ends_with(".mtp.fc")) return true;
  for (size_t begin = 0; begin <= module.size();) {
    const size_t dot = std::min(module.find('.', begin), module.size());
    if (Paths().contains(module.substr(begin, dot - begin))) return true;
    begin = dot + 1;
  }
  return false;
}

}  // namespace quantport
