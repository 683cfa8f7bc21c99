// bitsandbytes (https://github.com/bitsandbytes-foundation/bitsandbytes). 4-bit, the weight as one row of values:
//   weight             U8   [cdiv(n, 2), 1]   value 2k in the high half of a byte
//   weight.absmax      F32  [cdiv(n, blocksize)]
//   weight.quant_map   F32  [16]
//   weight.quant_state.bitsandbytes__nf4 (__fp4)  U8  JSON: the logical shape, blocksize, dtype, ...
//   weight.nested_absmax, weight.nested_quant_map     absmax itself quantized, less the mean of all of it
// 8-bit (LLM.int8()):
//   weight         I8   [out, in]
//   SCB            F32  [out]   the largest magnitude of each row
//   weight_format  U8   []
#include <algorithm>
#include <numeric>

#include "base/checked.h"
#include "base/json.h"
#include "layout/formats/formats.h"

namespace quantport {
namespace {

constexpr FormatLabel kLabels[] = {{FormatId::kBitsAndBytes4Bit, "BITSANDBYTES_4BIT"},
                                   {FormatId::kBitsAndBytes8Bit, "BITSANDBYTES_INT8"}};
constexpr std::string_view kStateLeaf = "weight.quant_state.";
constexpr std::string_view kFlattened =
    "the weight is stored as one row of values, in which this dimension is no range";
constexpr std::string_view kNested = "double quantization takes the mean of the whole weight's scales off them";

struct QuantState {
  Json json;
  Shape shape;
  uint64_t block_size = 0;
};

std::optional<QuantState> ReadState(const Candidate& candidate, const StoredPart& part) {
  const auto text = candidate.Read(part);
  if (!text) return std::nullopt;
  auto json = ParseJson(*text, {}, ErrorKind::kInvalidConfig);
  if (!json || !json->is_object()) return std::nullopt;
  QuantState state;
  const auto shape = json->find("shape");
  const auto block = json->find("blocksize");
  if (shape == json->end() || !shape->is_array() || shape->empty() || block == json->end() ||
      !block->is_number_unsigned())
    return std::nullopt;
  for (const Json& size : *shape) {
    if (!size.is_number_unsigned()) return std::nullopt;
    state.shape.push_back(size.get<uint64_t>());
  }
  state.block_size = block->get<uint64_t>();
  state.json = std::move(*json);
  return state.block_size == 0 ? std::nullopt : std::optional(std::move(state));
}

// On one line with a space behind each comma and colon: json.dumps without arguments, which bitsandbytes writes.
std::string DumpSpaced(const Json& json) {
  if (!json.is_structured()) return DumpJson(json, {.indent = -1, .final_newline = false, .ascii = true});
  std::string text;
  for (const auto& [key, value] : json.items()) {
    if (!text.empty()) text += ", ";
    if (json.is_object()) text += DumpSpaced(Json(key)) + ": ";
    text += DumpSpaced(value);
  }
  return json.is_object() ? "{" + text + "}" : "[" + text + "]";
}

std::optional<uint64_t> Elements(std::span<const uint64_t> shape) {
  uint64_t count = 1;
  for (const uint64_t size : shape) {
    const auto product = CheckedMul(count, size);
    if (!product) return std::nullopt;
    count = *product;
  }
  return count;
}

// Axes of a flattened tensor with one element for `share` values: a range of the first dimension is a range of it.
bool FitFlattened(StoredPart* part, const Shape& logical, uint64_t share) {
  const auto total = Elements(logical);
  const uint64_t row = Elements(std::span(logical).subspan(1)).value_or(0);
  if (!total || row == 0 || part->array.shape.empty() || part->array.shape[0] != CeilDiv(*total, share)) return false;
  const uint64_t common = std::gcd(share, row);
  Axis rows{0, share / common, row / common};
  // The last element may stand for less than its share, so that whole units do not add up to what is stored.
  if (rows.multiple > 1 && *total % share != 0)
    rows = WholeAxis(0, logical[0], part->array.shape[0], "its last element stands for values of several rows");
  part->axes.assign(logical.size(), WholeAxis(0, 1, 1, kFlattened));
  part->axes[0] = rows;
  return true;
}

bool Fit4Bit(const Candidate& candidate, StoredPart* state_part, StoredPart* absmax) {
  auto state = ReadState(candidate, *state_part);
  if (!state || candidate.stored().size() != 2 || candidate.stored()[1] != 1) return false;
  const Shape& logical = candidate.weight->shape = state->shape;
  if (!FitFlattened(&candidate.value(), logical, 2) || !FitFlattened(absmax, logical, state->block_size)) return false;
  state_part->axes.assign(logical.size(), std::nullopt);
  state_part->restate = [json = std::move(state->json)](std::span<const uint64_t> shape) {
    Json restated = json;
    restated["shape"] = std::vector<uint64_t>(shape.begin(), shape.end());
    const std::string text = DumpSpaced(restated);
    const auto* bytes = reinterpret_cast<const std::byte*>(text.data());
    return std::vector<std::byte>(bytes, bytes + text.size());
  };
  for (const char* map : {"weight.quant_map", "weight.nested_quant_map"}) {
    if (StoredPart* part = candidate.Find(map)) part->axes.assign(logical.size(), std::nullopt);
  }
  if (StoredPart* nested = candidate.Find("weight.nested_absmax")) {
    for (auto& axis : absmax->axes) axis->whole = kNested;
    nested->axes.assign(logical.size(), WholeAxis(0, 1, 1, kNested));
  }
  candidate.weight->format = FormatId::kBitsAndBytes4Bit;
  return true;
}

bool Fit8Bit(const Candidate& candidate, StoredPart* scale) {
  const Shape& logical = candidate.weight->shape = candidate.stored();
  candidate.value().axes = SameDims(logical.size());
  candidate.weight->format = FormatId::kBitsAndBytes8Bit;
  StoredPart* format = candidate.Find("weight_format");
  return FitRows(scale, logical) && (format == nullptr || FitScalar(format, logical));
}

bool Recognize(const Candidate& candidate) {
  if (!candidate.HasOwnName()) return false;
  if (StoredPart* scale = candidate.Find("SCB"); scale != nullptr && candidate.dtype() == DType::kI8)
    return Fit8Bit(candidate, scale);
  StoredPart* absmax = candidate.Find("weight.absmax");
  auto& parts = candidate.weight->parts;
  const auto state = std::find_if(parts.begin(), parts.end(),
                                  [](const StoredPart& part) { return part.leaf.starts_with(kStateLeaf); });
  return absmax != nullptr && state != parts.end() && candidate.dtype() == DType::kU8 &&
         Fit4Bit(candidate, &*state, absmax);
}

std::optional<std::string> Missing(const LogicalWeight& weight) {
  const bool state = std::any_of(weight.parts.begin(), weight.parts.end(),
                                 [](const StoredPart& part) { return part.leaf.starts_with(kStateLeaf); });
  const bool absmax = weight.Find("weight.absmax") != nullptr;
  if (state && !absmax) return "weight.absmax is missing beside weight.quant_state";
  if (absmax && !state) return "weight.quant_state is missing: nothing else states the weight's shape";
  if (weight.Find("weight_format") != nullptr && weight.Find("SCB") == nullptr)
    return "SCB is missing beside weight_format";
  return std::nullopt;
}

}  // namespace

const Format kBitsAndBytesFormat = {kLabels, Recognize, Missing};

}  // namespace quantport
