#include "verify/scheme_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <map>
#include <set>
#include <span>

#include "base/checked.h"
#include "config/module_set.h"

namespace quantport {
namespace {

using Layouts = std::span<const FormatId>;

constexpr FormatId kNvfp4[] = {FormatId::kNvfp4, FormatId::kNvfp4WeightOnly, FormatId::kNvfp4Awq, FormatId::kNvfp4Svd,
                               FormatId::kW4A8Nvfp4Fp8};
constexpr FormatId kFp8[] = {FormatId::kFp8PerTensor, FormatId::kFp8PerChannel, FormatId::kFp8Block,
                             FormatId::kFp8Group};
constexpr FormatId kFineGrained[] = {FormatId::kFp8PerTensor, FormatId::kFp8PerChannel, FormatId::kFp8Block,
                                     FormatId::kFp8Group,     FormatId::kMxfp8,         FormatId::kFp4Block,
                                     FormatId::kMxfp4};
constexpr FormatId kMxfp8[] = {FormatId::kMxfp8};
constexpr FormatId kMxfp4[] = {FormatId::kMxfp4, FormatId::kW4A8Mxfp4Fp8};
constexpr FormatId kGptOss[] = {FormatId::kMxfp4Blocks, FormatId::kMxfp4, FormatId::kW4A8Mxfp4Fp8};
constexpr FormatId kInt4[] = {FormatId::kInt4, FormatId::kW4A8Awq};
constexpr FormatId kInt8[] = {FormatId::kInt8, FormatId::kInt8SmoothQuant, FormatId::kIntQuantized};
constexpr FormatId kNaive[] = {FormatId::kFp8PerTensor, FormatId::kFp8PerChannel, FormatId::kFp8Block,
                               FormatId::kFp8Group,     FormatId::kInt8,          FormatId::kInt8SmoothQuant,
                               FormatId::kMxfp8,        FormatId::kIntQuantized};
constexpr FormatId kPack[] = {FormatId::kPackQuantized};
constexpr FormatId kNvfp4Pack[] = {FormatId::kNvfp4Pack};
constexpr FormatId kMxfp4Pack[] = {FormatId::kMxfp4Pack};
constexpr FormatId kGptq[] = {FormatId::kGptq};
constexpr FormatId kAwq[] = {FormatId::kAwq};
constexpr FormatId kBnb4[] = {FormatId::kBitsAndBytes4Bit};
constexpr FormatId kBnb8[] = {FormatId::kBitsAndBytes8Bit};

// What configs call the storage of weights (QuantScheme::claims, without regard to case), and the layouts that fit.
struct Claim {
  std::string_view name;
  Layouts layouts;
};
constexpr std::array<Claim, 28> kClaims = {{
    // ModelOpt's quant_algo
    {"FP8", kFp8},
    {"FP8_PER_CHANNEL_PER_TOKEN", kFp8},
    {"FP8_PB_WO", kFp8},
    {"FP8_PB_REAL", kFp8},
    {"NVFP4", kNvfp4},
    {"W4A16_NVFP4", kNvfp4},
    {"NVFP4_AWQ", kNvfp4},
    {"NVFP4_SVD", kNvfp4},
    {"W4A8_NVFP4_FP8", kNvfp4},
    {"MXFP8", kMxfp8},
    {"MXFP4", kGptOss},
    {"W4A8_MXFP4_FP8", kMxfp4},
    {"W4A16_AWQ", kInt4},
    {"INT4_AWQ", kInt4},
    {"W4A8_AWQ", kInt4},
    {"W8A16", kInt8},
    {"W8A8_SQ_PER_CHANNEL", kInt8},
    // compressed-tensors' format
    {"float-quantized", kFp8},
    {"int-quantized", kInt8},
    {"naive-quantized", kNaive},
    {"pack-quantized", kPack},
    {"nvfp4-pack-quantized", kNvfp4Pack},
    {"mxfp4-pack-quantized", kMxfp4Pack},
    {"mxfp8-quantized", kMxfp8},
    // quant_method
    {"gptq", kGptq},
    {"awq", kAwq},
    {"bitsandbytes 4-bit", kBnb4},
    {"bitsandbytes 8-bit", kBnb8},
}};

bool EqualsIgnoringCase(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

// The layouts that a name stands for; nothing for names that are not known.
Layouts LayoutsOf(std::string_view name, std::string_view method) {
  // transformers' fine-grained FP8 is called as ModelOpt's per-tensor FP8.
  if (method == "fp8" && EqualsIgnoringCase(name, "fp8")) return kFineGrained;
  for (const Claim& claim : kClaims) {
    if (EqualsIgnoringCase(claim.name, name)) return claim.layouts;
  }
  return {};
}

bool Holds(Layouts layouts, FormatId format) {
  return std::find(layouts.begin(), layouts.end(), format) != layouts.end();
}

bool IsKnownQuantized(const WeightUnit& unit) {
  return unit.role == UnitRole::kValue && unit.weight.format != FormatId::kPlain &&
         unit.weight.format != FormatId::kUnrecognized;
}

// The scale that stands for groups of inputs, and along which dimension: the coarsest axis of the block scales.
struct Groups {
  const StoredPart* scale;
  uint64_t inputs;
  uint64_t group;
};
std::optional<Groups> FindGroups(const LogicalWeight& weight) {
  const StoredPart* scale = weight.Find("weight_scale");
  if (scale == nullptr) scale = weight.Find("scales");
  const bool tiles = weight.format == FormatId::kFp8Block || weight.format == FormatId::kFp8PerTensor;
  if (scale == nullptr || tiles) return std::nullopt;
  std::optional<Groups> groups;
  for (size_t dim = 0; dim < scale->axes.size(); ++dim) {
    const auto& axis = scale->axes[dim];
    if (axis && axis->granularity > 1 && axis->multiple == 1)
      groups = Groups{scale, weight.shape[dim], axis->granularity};
  }
  return groups;
}

// The width of the integers of a packed weight, or 0.
uint64_t PackedBits(const LogicalWeight& weight) {
  if (weight.format != FormatId::kGptq && weight.format != FormatId::kPackQuantized) return 0;
  const auto& axis = weight.parts[0].axes.back();
  return axis && axis->whole.empty() ? 32 * axis->multiple / axis->granularity : 0;
}

std::string ShapeText(const std::vector<uint64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

class SchemeCheck {
 public:
  SchemeCheck(std::string_view file, const QuantScheme& scheme, const std::vector<WeightUnit>& units)
      : file_(file), scheme_(scheme), units_(units), modules_(QuantizedModules(units)) {}

  Errors Run() {
    FindExcluded();
    FindLayers();
    for (const WeightUnit& unit : units_) {
      if (unit.role != UnitRole::kValue || excluded_.contains(unit.module)) continue;
      CheckTile(unit);
      if (!IsKnownQuantized(unit)) continue;
      CheckClaims(unit);
      CheckGroups(unit);
      CheckBits(unit);
    }
    return std::move(errors_);
  }

 private:
  static std::vector<std::string> QuantizedModules(const std::vector<WeightUnit>& units) {
    std::vector<std::string> modules;
    for (const WeightUnit& unit : units) {
      if (IsKnownQuantized(unit)) modules.push_back(unit.module);
    }
    return modules;
  }

  void Add(std::string message, const std::string& tensor) {
    errors_.push_back({ErrorKind::kInvalidConfig, std::move(message), std::string(file_), tensor,
                       "servers read the tensors as the config says"});
  }

  // A plain name means that module only: lists hold names of containers that no loader looks up.
  void FindExcluded() {
    for (const std::string& entry : scheme_.excluded) {
      for (const uint32_t hit : modules_.Matches(entry)) {
        const std::string& module = modules_.names()[hit];
        if (!IsGlob(entry) && !IsRegex(entry) && module != entry) continue;
        if (!excluded_.insert(module).second) continue;
        Add(fmt::format("the exclude entry \"{}\" covers this module, whose tensors are quantized", entry), module);
      }
    }
  }

  void FindLayers() {
    for (const LayerScheme& layer : scheme_.quantized_layers) {
      for (const uint32_t hit : modules_.Matches(layer.entry)) layers_[modules_.names()[hit]] = &layer;
    }
  }

  const LayerScheme* LayerOf(const WeightUnit& unit) const {
    const auto layer = layers_.find(unit.module);
    return layer == layers_.end() ? nullptr : layer->second;
  }

  void CheckClaims(const WeightUnit& unit) {
    std::vector<std::string> claims = scheme_.claims;
    if (const LayerScheme* layer = LayerOf(unit)) {
      claims = {layer->algorithm};
    } else if (scheme_.overrides || !scheme_.quantized_layers.empty()) {
      return;
    }
    if (claims.empty()) return;
    for (const std::string& claim : claims) {
      const Layouts layouts = LayoutsOf(claim, scheme_.method);
      if (layouts.empty() || Holds(layouts, unit.weight.format)) return;
    }
    Add(fmt::format("the config says {}, the tensors are {}", fmt::join(claims, ", "), FormatName(unit.weight.format)),
        unit.key);
  }

  void CheckGroups(const WeightUnit& unit) {
    const auto groups = FindGroups(unit.weight);
    if (!groups) return;
    std::vector<uint64_t> sizes = scheme_.group_sizes;
    if (const LayerScheme* layer = LayerOf(unit)) {
      sizes = {layer->group_size};
    } else if (scheme_.overrides || !scheme_.quantized_layers.empty()) {
      return;
    }
    const uint64_t count = CeilDiv(groups->inputs, groups->group);
    const bool fits = std::any_of(sizes.begin(), sizes.end(),
                                  [&](uint64_t size) { return size == 0 || CeilDiv(groups->inputs, size) == count; });
    if (fits || sizes.empty()) return;
    Add(fmt::format("group_size is {}, but {} has one scale for {} values", fmt::join(sizes, ", "), groups->scale->leaf,
                    groups->group),
        unit.key);
  }

  void CheckBits(const WeightUnit& unit) {
    const uint64_t bits = PackedBits(unit.weight);
    if (bits == 0 || scheme_.bits.empty() || scheme_.overrides) return;
    if (std::find(scheme_.bits.begin(), scheme_.bits.end(), bits) != scheme_.bits.end()) return;
    Add(fmt::format("the config says {} bits, the tensors hold values of {}", fmt::join(scheme_.bits, ", "), bits),
        unit.key);
  }

  // A grid of scales that the stated tile does not give; then the layout is not known either.
  void CheckTile(const WeightUnit& unit) {
    const StoredPart* scale = unit.weight.Find("weight_scale_inv");
    const bool grid = unit.weight.format == FormatId::kUnrecognized && scheme_.states_tile && scale != nullptr &&
                      scale->array.shape.size() == unit.weight.shape.size() && unit.weight.shape.size() >= 2 &&
                      (unit.weight.parts[0].array.dtype == DType::kF8E4M3);
    if (!grid) return;
    Add(fmt::format("weight_block_size is {}, which does not make scales of shape {} of a weight of shape {}",
                    ShapeText({scheme_.fp8_tile[0], scheme_.fp8_tile[1]}), ShapeText(scale->array.shape),
                    ShapeText(unit.weight.shape)),
        unit.key);
  }

  std::string_view file_;
  const QuantScheme& scheme_;
  const std::vector<WeightUnit>& units_;
  ModuleSet modules_;
  std::set<std::string> excluded_;
  std::map<std::string, const LayerScheme*> layers_;
  Errors errors_;
};

}  // namespace

Errors CheckScheme(const ConfigFiles& configs, const std::vector<WeightUnit>& units) {
  Errors errors;
  for (const auto& [file, scheme] : configs.schemes) {
    for (Error& error : SchemeCheck(file, scheme, units).Run()) errors.push_back(std::move(error));
  }
  return errors;
}

}  // namespace quantport
