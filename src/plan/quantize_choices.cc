#include "plan/quantize_choices.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/text.h"
#include "dialect/modelopt_formats.h"
#include "format/format.h"
#include "plan/amax_groups.h"

namespace quantport {
namespace {

const NumberBits kE8M0 = NumberBits::Float(8, 0);
constexpr double kMostCandidates = 1000;    // of a search; ModelOpt's default is 39
constexpr float kUncalibratedInput = 0.5f;  // ModelOpt's fallback_value of set_expert_quantizer_amax
constexpr std::string_view kNoCalibration =
    "pass --calibration FILE, or take a recipe that needs none: dynamic activations (mxfp8, "
    "fp8_per_channel_per_token), "
    "weights only (nvfp4_weight_only-kv_fp8_cast, int8_weight_only) or a constant input scale "
    "(nvfp4_experts_only_input_scale1-kv_fp8_cast)";

// Whether a quantizer's scale comes from calibration, a constant aside.
bool IsStatic(const QuantizerAttributes& attributes) {
  if (attributes.dynamic || attributes.use_constant_amax) return false;
  const auto& blocks = attributes.block_sizes;
  if (!blocks) return true;
  // Blocks with E4M3 scales have a scale of the whole tensor besides; those of powers of two have not, nor has a token.
  return blocks->scale_bits && *blocks->scale_bits != kE8M0;
}

class Chooser {
 public:
  explicit Chooser(const ChoiceInput& input) : input_(input), memory_(*input.memory) {
    resolved_of_.assign(memory_.modules.size(), nullptr);
    for (size_t i = 0; i < input.modules.size(); ++i) resolved_of_[input.modules[i]] = &input.resolved->modules[i];
    for (const RecipeAlgorithm& algorithm : input.recipe->algorithms) {
      calibrates_ |= !algorithm.method.empty();
      if (algorithm.method == "mse") mse_ = &algorithm;
    }
  }

  Result<ChosenFormats> Choose() {
    chosen_.choices.resize(memory_.matrices.size());
    ReportObstacles();
    FindExpertMaxima();
    for (size_t m = 0; m < memory_.matrices.size(); ++m) ChooseMatrix(m);
    ChooseCacheScales();
    if (missing_ > kShown) {
      errors_.push_back({ErrorKind::kUnsupportedRecipe,
                         fmt::format("and {} modules more without a calibrated amax", missing_ - kShown),
                         input_.recipe->name,
                         {},
                         {}});
    }
    if (!errors_.empty()) return std::move(errors_);
    if (uncalibrated_inputs_.count > 0) chosen_.warnings.push_back(std::move(uncalibrated_inputs_));
    return std::move(chosen_);
  }

 private:
  static constexpr size_t kShown = 20;

  void ReportObstacles() {
    std::vector<std::string> left;
    for (size_t m = 0; m < memory_.modules.size(); ++m) {
      const ResolvedModule* resolved = resolved_of_[m];
      const MemoryModule& module = memory_.modules[m];
      if (resolved == nullptr || resolved->format == FormatId::kPlain) continue;
      if (module.module.kind == ModuleKind::kConvolution || module.module.kind == ModuleKind::kEmbedding) {
        left.push_back(module.module.name);
      } else if (!module.obstacle.empty()) {
        errors_.push_back({ErrorKind::kQuantConversionUnsupported,
                           module.obstacle,
                           {},
                           module.module.name,
                           "leave this module out of the recipe"});
      }
    }
    if (left.empty()) return;
    Warning warning{"left-unquantized",
                    "convolutions and embeddings that the recipe asks for stay as they are: only linears are exported "
                    "quantized",
                    0,
                    {},
                    {}};
    for (const auto& name : left) AddName(std::string(name), &warning);
    chosen_.warnings.push_back(std::move(warning));
  }

  bool IsLeftAlone(size_t module) const {
    const MemoryModule& own = memory_.modules[module];
    return resolved_of_[module] == nullptr || own.module.kind == ModuleKind::kConvolution ||
           own.module.kind == ModuleKind::kEmbedding || !own.obstacle.empty();
  }

  void ChooseMatrix(size_t index) {
    const HubMatrix& matrix = memory_.matrices[index];
    std::optional<Encoding> format;
    for (const MemoryPlace& place : matrix.places) {
      Encoding own;
      if (!IsLeftAlone(place.module)) own = FormatAt(place);
      if (format && *format != own) {
        errors_.push_back({ErrorKind::kUnsupportedRecipe,
                           "the recipe has different formats for what this weight becomes in memory",
                           input_.recipe->name, matrix.name, "give all of it one format"});
        return;
      }
      format = own;
    }
    if (!format || format->format == FormatId::kPlain) return;
    MatrixChoice choice{*format, std::nullopt};
    if (FindFormat(format->format)->input_divisor != 0) choice.input_amax = InputAmax(matrix, matrix.places[0]);
    chosen_.choices[index] = choice;
  }

  static std::string Quantizer(const MemoryPlace& place, std::string_view name) {
    return place.projection.empty() ? std::string(name) : place.projection + "_" + std::string(name);
  }

  Encoding FormatAt(const MemoryPlace& place) {
    const ResolvedModule& module = *resolved_of_[place.module];
    Encoding format;
    format.format = module.format;
    format.block = static_cast<uint64_t>(module.block_size);
    const bool numbered = module.module.kind == ModuleKind::kFusedExperts;
    const ResolvedQuantizer* weight =
        module.Find(Quantizer(place, numbered ? "weight_quantizers" : "weight_quantizer"));
    if (format.format == FormatId::kPlain || weight == nullptr) return format;
    const QuantizerAttributes& attributes = weight->attributes->front();
    const bool nvfp4 = format.format == FormatId::kNvfp4 || format.format == FormatId::kNvfp4WeightOnly;
    if (nvfp4 && attributes.block_sizes && !attributes.block_sizes->dynamic) {
      format.static_blocks = true;
      format.four_over_six = attributes.block_sizes->four_over_six;
      SetSearch(&format);
    } else if (!HasPowersOfTwo(attributes)) {
      SetSearch(&format);
      // ModelOpt sweeps over scales of NVFP4 alone, and leaves all else at the largest magnitude.
      if (format.search == ScaleSearch::kSweep) format.search = ScaleSearch::kNone;
      if (format.search != ScaleSearch::kNone && attributes.block_sizes && attributes.block_sizes->dynamic)
        RefuseSearch(module, fmt::format("for {} whose block scales are dynamic", ModelOptFormatName(format.format)));
    }
    const double tried = std::ceil((format.search_stop - format.search_start) / format.search_step) + 1;
    if (format.search == ScaleSearch::kMultipliers && !(tried >= 1 && tried <= kMostCandidates))
      RefuseSearch(module, fmt::format("with these multipliers, and one step to {} at most", kMostCandidates));
    return format;
  }

  static bool HasPowersOfTwo(const QuantizerAttributes& attributes) {
    return attributes.block_sizes && attributes.block_sizes->scale_bits == kE8M0;
  }

  void RefuseSearch(const ResolvedModule& module, const std::string& why) {
    errors_.push_back({ErrorKind::kUnsupportedRecipe, "the algorithm mse is not computed " + why, mse_->place,
                       module.module.name, "take the recipe with algorithm max"});
  }

  void SetSearch(Encoding* format) const {
    if (mse_ == nullptr) return;
    const Json& options = mse_->options;
    const auto number = [&](const char* key, double otherwise) {
      const auto found = options.find(key);
      return found != options.end() && found->is_number() ? found->get<double>() : otherwise;
    };
    const auto sweep = options.find("fp8_scale_sweep");
    format->search = sweep != options.end() && sweep->is_boolean() && sweep->get<bool>() ? ScaleSearch::kSweep
                                                                                         : ScaleSearch::kMultipliers;
    format->search_start = number("start_multiplier", format->search_start);
    format->search_stop = number("stop_multiplier", format->search_stop);
    format->search_step = number("step_size", format->search_step);
  }

  std::optional<float> Calibrated(const std::string& name) {
    if (input_.calibration == nullptr) return std::nullopt;
    const auto found = input_.calibration->find(name);
    if (found == input_.calibration->end()) return std::nullopt;
    chosen_.used.insert(name);
    return found->second;
  }

  // A module's own amax, by its name in memory or on the hub.
  std::optional<float> OwnAmax(const HubMatrix& matrix, const MemoryPlace& place) {
    const std::string module = memory_.modules[place.module].module.name;
    if (auto amax =
            Calibrated(JoinName(module, place.projection.empty() ? "input_amax" : place.projection + ".input_amax")))
      return amax;
    return Calibrated(matrix.name + ".input_amax");
  }

  // "<container>.<i>.<linear>" -> "<container>.*.<linear>"; anything else -> "".
  static std::string ExpertKey(const std::string& module) {
    const auto [linear_path, leaf] = SplitLeaf(module);
    const auto [container, number] = SplitLeaf(linear_path);
    return IsDigits(number) && SplitLeaf(container).leaf == "experts" ? fmt::format("{}.*.{}", container, leaf)
                                                                      : std::string();
  }

  // An expert that no token reached gets the largest of the others, and linears that share their input one for all.
  void FindExpertMaxima() {
    if (input_.calibration == nullptr) return;
    for (const HubMatrix& matrix : memory_.matrices) {
      for (const MemoryPlace& place : matrix.places) {
        const auto amax = OwnAmax(matrix, place);
        if (!amax) continue;
        const auto raise = [&](const std::string& key) {
          if (key.empty()) return;
          const auto [it, fresh] = maxima_.emplace(key, *amax);
          if (!fresh) it->second = std::max(it->second, *amax);
        };
        raise(ExpertKey(matrix.name));
        if (place.projection.empty()) raise(SharedInputOf(memory_.modules[place.module].module.name));
      }
    }
  }

  std::optional<float> Maximum(const std::string& key) const {
    const auto found = maxima_.find(key);
    return key.empty() || found == maxima_.end() ? std::nullopt : std::optional(found->second);
  }

  std::optional<float> InputAmax(const HubMatrix& matrix, const MemoryPlace& place) {
    const ResolvedModule& module = *resolved_of_[place.module];
    const ResolvedQuantizer* input = module.Find(Quantizer(place, "input_quantizer"));
    const bool batched = module.module.kind == ModuleKind::kBatchedExperts;
    if (input == nullptr || !input->enabled) return std::nullopt;
    const QuantizerAttributes& attributes = input->attributes->front();
    if (!calibrates_) return batched && IsStatic(attributes) ? std::optional(kUncalibratedInput) : std::nullopt;
    if (attributes.constant_amax) return static_cast<float>(*attributes.constant_amax);
    if (!IsStatic(attributes)) return std::nullopt;
    auto amax = OwnAmax(matrix, place);
    if (module.format != FormatId::kFp8PerTensor && place.projection.empty()) {
      if (const auto shared = Maximum(SharedInputOf(module.module.name))) amax = std::max(amax.value_or(0), *shared);
    }
    if (!amax) amax = Maximum(ExpertKey(matrix.name));
    if (!amax && input_.calibration != nullptr && batched) amax = BatchedFallback(place);
    if (!amax && input_.calibration != nullptr && !place.projection.empty()) {
      // As ModelOpt exports a container that no token reached.
      if (uncalibrated_.insert(module.module.name + "." + place.projection).second) {
        chosen_.warnings.push_back({"uncalibrated-experts",
                                    fmt::format("{}.{} has no calibrated amax: its experts get no input_scale",
                                                Printable(module.module.name), place.projection),
                                    0,
                                    {},
                                    {}});
      }
      return std::nullopt;
    }
    return Checked(amax, module.module.name + (place.projection.empty() ? "" : "." + place.projection), "input_amax",
                   module.format == FormatId::kNvfp4);
  }

  // As ModelOpt exports batched experts of which one projection was not calibrated, or none.
  float BatchedFallback(const MemoryPlace& place) {
    const std::string& container = memory_.modules[place.module].module.name;
    const std::string other = place.projection == "down_proj" ? "gate_up_proj" : "down_proj";
    const float amax = Calibrated(fmt::format("{}.{}.input_amax", container, other)).value_or(kUncalibratedInput);
    chosen_.warnings.push_back(
        {"uncalibrated-experts",
         fmt::format("{}.{} has no calibrated amax: {} is taken", Printable(container), place.projection, amax),
         0,
         {},
         {}});
    return amax;
  }

  std::optional<float> Checked(std::optional<float> amax, const std::string& module, std::string_view leaf,
                               bool positive) {
    if (!amax && input_.only_plan && input_.calibration == nullptr) {
      if (asked_.insert(module).second) AddName(module, &uncalibrated_inputs_);
      return 1.0f;
    }
    if (!amax) {
      // Without any calibration one error says it all.
      if (input_.calibration == nullptr && missing_ > 0) return 1.0f;
      if (!asked_.insert(module).second) return 1.0f;
      if (++missing_ > kShown) return 1.0f;
      errors_.push_back(
          {ErrorKind::kUnsupportedRecipe,
           input_.calibration == nullptr
               ? fmt::format("recipe {} quantizes activations with static scales, which need a calibration",
                             Printable(input_.recipe->name))
               : fmt::format("the calibration has no {}.{}", Printable(module), leaf),
           input_.recipe->name, module, std::string(kNoCalibration)});
      return 1.0f;
    }
    if (std::isfinite(*amax) && (*amax > 0 || (!positive && *amax == 0))) return amax;
    errors_.push_back({ErrorKind::kUnsupportedRecipe, fmt::format("its calibrated {} is {}", leaf, *amax),
                       input_.recipe->name, module, "calibrate again with data that reaches this module"});
    return 1.0f;
  }

  void ChooseCacheScales() {
    for (size_t m = 0; m < memory_.modules.size(); ++m) {
      if (memory_.modules[m].module.kind != ModuleKind::kAttention || resolved_of_[m] == nullptr) continue;
      AddCacheScale(m, "k");
      AddCacheScale(m, "v");
    }
  }

  void AddCacheScale(size_t index, const std::string& letter) {
    const ResolvedModule& module = *resolved_of_[index];
    const ResolvedQuantizer* quantizer = module.Find(letter + "_bmm_quantizer");
    if (quantizer == nullptr || !quantizer->enabled || !calibrates_) return;
    const QuantizerAttributes& attributes = quantizer->attributes->front();
    const std::string& name = module.module.name;
    if (attributes.bias || attributes.rotate) {
      errors_.push_back({ErrorKind::kUnsupportedRecipe, "an affine or rotated KV cache needs activations",
                         input_.recipe->name, name, "pass --kv-cache fp8_cast, or another one"});
      return;
    }
    std::optional<float> amax;
    const std::string leaf = letter + "_amax";
    const std::string hub = HubAttention(name);
    if (attributes.constant_amax) {
      amax = static_cast<float>(*attributes.constant_amax);
    } else {
      if (!IsStatic(attributes)) return;
      amax = Calibrated(JoinName(name, leaf));
      if (!amax) amax = Calibrated(JoinName(hub, leaf));
      amax = Checked(amax, name, leaf, false);
    }
    chosen_.cache_scales.push_back({fmt::format("{}.{}_proj.{}_scale", hub, letter, letter), beside_, *amax});
  }

  // The hub's path of an attention, by that of a linear in it, whose weight is left in `beside_`.
  std::string HubAttention(const std::string& attention) {
    for (auto it = memory_.hub_names.lower_bound(attention + "."); it != memory_.hub_names.end(); ++it) {
      const auto& [module, hubs] = *it;
      if (!module.starts_with(attention + ".")) break;
      if (SplitLeaf(module).module != attention || hubs.empty()) continue;
      beside_ = hubs[0] + ".weight";
      return std::string(SplitLeaf(hubs[0]).module);
    }
    return attention;
  }

  const ChoiceInput& input_;
  const MemoryModel& memory_;
  std::vector<const ResolvedModule*> resolved_of_;  // of each module; nullptr: no quantizers
  bool calibrates_ = false;
  const RecipeAlgorithm* mse_ = nullptr;
  std::map<std::string, float> maxima_;
  std::set<std::string> uncalibrated_;
  std::set<std::string> asked_;
  Warning uncalibrated_inputs_ = {"needs-calibration",
                                  "quantizing will need a calibration, since activations get static scales",
                                  0,
                                  {},
                                  "--calibration FILE"};
  size_t missing_ = 0;
  std::string beside_;
  ChosenFormats chosen_;
  Errors errors_;
};

}  // namespace

Result<ChosenFormats> ChooseFormats(const ChoiceInput& input) { return Chooser(input).Choose(); }

}  // namespace quantport
