#include "recipe/attributes.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>

#include "base/text.h"

namespace quantport {
namespace {

bool BoolOf(const YamlValue& value, std::string_view key) {
  if (value.kind != YamlValue::Kind::kBool)
    Fail(value, fmt::format("{} is {}, not true or false", key, Described(value)));
  return value.boolean;
}

int IntOf(const YamlValue& value, std::string_view key) {
  constexpr int64_t kLimit = 1 << 24;
  if (value.kind != YamlValue::Kind::kInt)
    Fail(value, fmt::format("{} is {}, not a whole number", key, Described(value)));
  if (value.integer < -kLimit || value.integer > kLimit) Fail(value, fmt::format("{} is out of range", key));
  return static_cast<int>(value.integer);
}

double NumberOf(const YamlValue& value, std::string_view key) {
  if (value.kind == YamlValue::Kind::kInt) return static_cast<double>(value.integer);
  if (value.kind != YamlValue::Kind::kFloat) Fail(value, fmt::format("{} is {}, not a number", key, Described(value)));
  return value.number;
}

std::string TextOf(const YamlValue& value, std::string_view key) {
  if (!value.IsString()) Fail(value, fmt::format("{} is {}, not a text", key, Described(value)));
  return value.text;
}

bool IsDynamic(const YamlValue& value) {
  if (value.IsString() && value.text == "dynamic") return true;
  if (!value.IsString() || value.text != "static")
    Fail(value, fmt::format("type is {}, not static or dynamic", Described(value)));
  return false;
}

NumberBits BitsOf(const YamlValue& value, std::string_view key) {
  NumberBits bits;
  if (value.kind == YamlValue::Kind::kInt) {
    bits.integer = IntOf(value, key);
    if (bits.integer < 1) Fail(value, fmt::format("{} is {}, not a positive number", key, bits.integer));
    return bits;
  }
  if (!value.IsList() || value.items.size() != 2)
    Fail(value, fmt::format("{} is {}, neither a number of bits nor a format such as e4m3", key, Described(value)));
  return NumberBits::Float(IntOf(value.items[0], key), IntOf(value.items[1], key));
}

void CheckNumBits(const YamlValue& at, const NumberBits& bits, const std::optional<BlockSizes>& blocks) {
  if (!bits.IsFloat()) return;
  constexpr std::array<std::pair<int, int>, 8> kKnown = {
      {{4, 3}, {5, 2}, {2, 1}, {1, 2}, {0, 3}, {3, 0}, {3, 2}, {2, 3}}};
  const std::pair<int, int> pair(bits.exponent, bits.mantissa);
  if (pair.first <= 0 || pair.second <= 0 || std::find(kKnown.begin(), kKnown.end(), pair) == kKnown.end())
    Fail(at, fmt::format("num_bits is {}, which is no known format", ToString(bits)),
         "FP8 is e4m3 or e5m2, FP6 e3m2, FP4 e2m1");
  if (pair != std::pair(4, 3) && pair != std::pair(2, 1) && !(blocks && blocks->dynamic))
    Fail(at, fmt::format("num_bits {} without block_sizes of type dynamic", ToString(bits)));
}

BlockSizes ParseBlockSizes(const YamlValue& value) {
  if (!value.IsMap()) Fail(value, fmt::format("block_sizes is {}, not a mapping", Described(value)));
  BlockSizes blocks;
  for (size_t i = 0; i < value.keys.size(); ++i) {
    const YamlValue& key = value.keys[i];
    const YamlValue& item = value.items[i];
    if (key.kind == YamlValue::Kind::kInt) {
      std::optional<int> size;
      if (!item.IsNull()) size = IntOf(item, "a block size");
      if (size && *size < 1) Fail(item, fmt::format("a block size of {}", *size));
      blocks.axes[IntOf(key, "an axis")] = size;
    } else if (key.IsString() && key.text == "type") {
      blocks.dynamic = IsDynamic(item);
    } else if (key.IsString() && key.text == "scale_bits") {
      if (!item.IsNull()) blocks.scale_bits = BitsOf(item, "scale_bits");
    } else if (key.IsString() && key.text == "four_over_six") {
      blocks.four_over_six = BoolOf(item, "four_over_six");
    } else if (!key.IsString() || key.text != "scale_block_sizes") {
      Fail(key, fmt::format("block_sizes has {}", Described(key)),
           "it takes axes and type, scale_bits, scale_block_sizes, four_over_six");
    }
  }
  if (blocks.dynamic && blocks.axes.size() != 1)
    Fail(value, "block_sizes of type dynamic over more or less than one axis");
  return blocks;
}

std::vector<int> ParseAxis(const YamlValue& value) {
  if (value.IsNull()) return {};
  if (!value.IsList()) return {IntOf(value, "axis")};
  std::vector<int> axes;
  for (const YamlValue& item : value.items) axes.push_back(IntOf(item, "axis"));
  return axes;
}

void CheckBias(const YamlValue& value) {
  if (!value.IsMap()) Fail(value, fmt::format("bias is {}, not a mapping", Described(value)));
  size_t axes = 0;
  for (size_t i = 0; i < value.keys.size(); ++i) {
    const YamlValue& key = value.keys[i];
    if (key.IsString() && key.text == "type") {
      IsDynamic(value.items[i]);
    } else if (key.kind == YamlValue::Kind::kInt) {
      ++axes;
    } else if (!key.IsString() || key.text != "method") {
      Fail(key, fmt::format("bias has {}", Described(key)), "it takes axes, type and method");
    }
  }
  if (axes == 0) Fail(value, "bias without an axis");
}

bool ParseRotate(const YamlValue& value) {
  if (!value.IsMap()) return BoolOf(value, "rotate");
  CheckKeys(value, {"enable", "mode", "rotate_fp32", "block_size"}, "rotate");
  const YamlValue* enable = value.Find("enable");
  return enable != nullptr && BoolOf(*enable, "enable");
}

// A field by name; false where there is none of that name.
bool ParseField(const std::string& key, const YamlValue& item, QuantizerAttributes* out) {
  if (key == "enable" || key == "fake_quant" || key == "pass_through_bwd" || key == "learn_amax") {
    if (BoolOf(item, key) && key == "learn_amax") Fail(item, "learn_amax is no longer supported");
    if (key == "fake_quant" || key == "pass_through_bwd") {
      if (!item.boolean) out->other[key] = false;
    }
  } else if (key == "axis") {
    out->axis = ParseAxis(item);
  } else if (key == "block_sizes") {
    if (!item.IsNull()) out->block_sizes = ParseBlockSizes(item);
  } else if (key == "type") {
    out->dynamic = IsDynamic(item);
  } else if (key == "unsigned") {
    out->unsigned_range = BoolOf(item, key);
  } else if (key == "narrow_range") {
    out->narrow_range = BoolOf(item, key);
  } else if (key == "use_constant_amax") {
    out->use_constant_amax = BoolOf(item, key);
  } else if (key == "constant_amax") {
    if (!item.IsNull()) out->constant_amax = NumberOf(item, key);
    if (out->constant_amax && !(*out->constant_amax > 0)) Fail(item, "constant_amax is not positive");
  } else if (key == "rotate") {
    out->rotate = ParseRotate(item);
    if (item.IsMap()) out->other[key] = ToJson(item);
  } else if (key == "bias") {
    if (item.IsNull()) return true;
    CheckBias(item);
    out->bias = true;
    out->other[key] = ToJson(item);
  } else if (key == "effective_bits") {
    if (item.IsNull()) return true;
    const double bits = NumberOf(item, key);
    if (!(bits > 0 && bits <= 16)) Fail(item, "effective_bits lies outside (0, 16]");
    out->other[key] = bits;
  } else if (key == "calibrator") {
    if (item.IsString() && item.text != "max" && item.text != "histogram")
      Fail(item, fmt::format("calibrator is {}, not max or histogram", Described(item)));
    if (!item.IsString() || item.text != "max") out->other[key] = ToJson(item);
  } else if (key == "backend") {
    if (!item.IsNull()) out->backend = TextOf(item, key);
  } else if (key == "backend_extra_args" || key == "trt_high_precision_dtype") {
    if (!item.IsNull() && ToJson(item) != Json("Float")) out->other[key] = ToJson(item);
  } else {
    return false;
  }
  return true;
}

bool IsEmptyCfg(const YamlValue& cfg) {
  if (cfg.IsMap()) return cfg.keys.empty();
  if (!cfg.IsList()) return false;
  return std::all_of(cfg.items.begin(), cfg.items.end(),
                     [](const YamlValue& item) { return item.IsMap() && item.keys.empty(); });
}

std::string PlaceOf(const YamlValue& value) {
  return fmt::format("{}:{}", value.file ? *value.file : std::string(), value.line);
}

}  // namespace

std::optional<std::pair<int, int>> ParseBits(std::string_view text) {
  if (text.empty() || (text[0] != 'e' && text[0] != 'E')) return std::nullopt;
  const size_t middle = text.find_first_of("mM");
  if (middle == std::string_view::npos) return std::nullopt;
  const std::string_view exponent = text.substr(1, middle - 1);
  const std::string_view mantissa = text.substr(middle + 1);
  if (!IsDigits(exponent) || !IsDigits(mantissa) || exponent.size() > 3 || mantissa.size() > 3) return std::nullopt;
  return std::pair(std::stoi(std::string(exponent)), std::stoi(std::string(mantissa)));
}

void CheckKeys(const YamlValue& map, std::initializer_list<std::string_view> known, std::string_view what) {
  for (const YamlValue& key : map.keys) {
    if (key.IsString() && std::find(known.begin(), known.end(), key.text) != known.end()) continue;
    Fail(key, fmt::format("{} has no field {}", what, Described(key)),
         fmt::format("it takes {}", fmt::join(known, ", ")));
  }
}

QuantizerAttributes ParseAttributes(const YamlValue& value) {
  if (!value.IsMap()) Fail(value, fmt::format("{} where quantizer attributes are expected", Described(value)));
  QuantizerAttributes attributes;
  const YamlValue* num_bits = nullptr;
  for (size_t i = 0; i < value.keys.size(); ++i) {
    const YamlValue& key = value.keys[i];
    if (key.IsString() && key.text == "num_bits") {
      num_bits = &value.items[i];
    } else if (!key.IsString() || !ParseField(key.text, value.items[i], &attributes)) {
      Fail(key, fmt::format("quantizer attributes have no field {}", Described(key)));
    }
  }
  if (value.keys.size() == 1 && value.Find("enable") != nullptr && value.items[0].boolean)
    Fail(value, "enable: true alone says nothing about the quantizer");
  if (num_bits != nullptr && num_bits->IsString() && !attributes.backend.empty()) {
    attributes.other["num_bits"] = num_bits->text;  // a name that only the backend knows
  } else if (num_bits != nullptr) {
    attributes.num_bits = BitsOf(*num_bits, "num_bits");
    if (attributes.backend.empty()) CheckNumBits(*num_bits, attributes.num_bits, attributes.block_sizes);
  }
  if (attributes.block_sizes && !attributes.axis.empty()) Fail(value, "axis and block_sizes in one quantizer");
  if (attributes.use_constant_amax && attributes.constant_amax)
    Fail(value, "use_constant_amax and constant_amax in one quantizer");
  return attributes;
}

RecipeEntry ParseEntry(const YamlValue& value) {
  if (!value.IsMap()) Fail(value, fmt::format("{} where a quantizer entry is expected", Described(value)));
  const YamlValue* name = value.Find("quantizer_name");
  if (name == nullptr) {
    Fail(value, "an entry without quantizer_name",
         "entries are mappings of quantizer_name, parent_class, cfg and enable");
  }
  CheckKeys(value, {"quantizer_name", "parent_class", "cfg", "enable"}, "an entry");
  RecipeEntry entry;
  entry.quantizer_name = TextOf(*name, "quantizer_name");
  entry.place = PlaceOf(value);
  const YamlValue* enable = value.Find("enable");
  if (enable != nullptr) entry.enable = BoolOf(*enable, "enable");
  if (const YamlValue* parent = value.Find("parent_class"); parent != nullptr && !parent->IsNull())
    entry.parent_class = TextOf(*parent, "parent_class");
  const YamlValue* cfg = value.Find("cfg");
  if (cfg == nullptr && enable == nullptr) Fail(value, "an entry with neither cfg nor enable has no effect");
  if (cfg == nullptr || cfg->IsNull()) return entry;
  if (IsEmptyCfg(*cfg)) {
    if (enable == nullptr || entry.enable)
      Fail(*cfg, "an empty cfg", "leave cfg out to keep the attributes, or set enable: false");
    return entry;
  }
  if (!cfg->IsList()) {
    entry.cfg.push_back(ParseAttributes(*cfg));
  } else {
    for (const YamlValue& item : cfg->items) entry.cfg.push_back(ParseAttributes(item));
  }
  return entry;
}

std::vector<RecipeEntry> ParseEntries(const YamlValue& value) {
  if (value.IsMap()) {
    Fail(value, "quant_cfg is a mapping, ModelOpt's deprecated form",
         "write a list of {quantizer_name: ..., cfg: ...} entries");
  }
  if (!value.IsList()) Fail(value, fmt::format("quant_cfg is {}, not a list of entries", Described(value)));
  std::vector<RecipeEntry> entries;
  for (const YamlValue& item : value.items) entries.push_back(ParseEntry(item));
  return entries;
}

std::vector<RecipeAlgorithm> ParseAlgorithms(const YamlValue& value) {
  std::vector<RecipeAlgorithm> algorithms;
  if (value.IsList()) {
    for (const YamlValue& item : value.items) {
      if (item.IsList()) Fail(item, "a list in a list of algorithms");
      algorithms.push_back(ParseAlgorithms(item).front());
    }
    return algorithms;
  }
  RecipeAlgorithm algorithm;
  algorithm.place = PlaceOf(value);
  if (value.IsMap()) {
    const YamlValue* method = value.Find("method");
    if (method != nullptr && !method->IsNull()) algorithm.method = TextOf(*method, "method");
    algorithm.options = ToJson(value);
    algorithm.options.erase("method");
  } else if (!value.IsNull()) {
    algorithm.method = TextOf(value, "algorithm");
  }
  return {algorithm};
}

void CheckAgainstSchema(const YamlValue& value, const Schema& schema) {
  switch (schema.type) {
    case SchemaType::kEntry:
      ParseEntry(value);
      return;
    case SchemaType::kEntryList:
      ParseEntries(value);
      return;
    case SchemaType::kAttributes:
      ParseAttributes(value);
      return;
    case SchemaType::kQuantize:
      if (!value.IsMap()) Fail(value, fmt::format("{} where algorithm and quant_cfg are expected", Described(value)));
      CheckKeys(value, {"algorithm", "quant_cfg", "effective_bits"}, "a quantization config");
      if (const YamlValue* entries = value.Find("quant_cfg")) ParseEntries(*entries);
      return;
    default:
      return;
  }
}

}  // namespace quantport
