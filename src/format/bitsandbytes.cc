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
#include "format/families.h"
#include "format/forms.h"
#include "format/leaves.h"

namespace quantport {
namespace {

constexpr Format kFormats[] = {{FormatId::kBitsAndBytes4Bit, "BITSANDBYTES_4BIT"},
                               {FormatId::kBitsAndBytes8Bit, "BITSANDBYTES_INT8"}};
constexpr std::string_view kAbsmax = "weight.absmax";
constexpr std::string_view kQuantMap = "weight.quant_map";
constexpr std::string_view kStateNf4 = "weight.quant_state.bitsandbytes__nf4";
constexpr std::string_view kStateFp4 = "weight.quant_state.bitsandbytes__fp4";
constexpr std::string_view kStateLeaf = "weight.quant_state.";
constexpr std::string_view kNestedAbsmax = "weight.nested_absmax";
constexpr std::string_view kNestedMap = "weight.nested_quant_map";
constexpr std::string_view kScb = "SCB";
constexpr std::string_view kStorage = "weight_format";
constexpr std::string_view kFlattened =
    "the weight is stored as one row of values, in which this dimension is no range";
constexpr std::string_view kNested = "double quantization takes the mean of the whole weight's scales off them";

// ---- the state, which states the shape -----------------------------------------------------------------------------

// Fills shape and block sizes. False where the text states none.
bool ReadState(const std::string& text, Proposal* proposal) {
  const auto json = ParseJson(text, {}, ErrorKind::kInvalidConfig);
  if (!json || !json->is_object()) return false;
  const auto shape = json->find("shape");
  const auto block = json->find("blocksize");
  if (shape == json->end() || !shape->is_array() || shape->empty() || block == json->end() ||
      !block->is_number_unsigned())
    return false;
  for (const Json& size : *shape) {
    if (!size.is_number_unsigned()) return false;
    proposal->shape.push_back(size.get<uint64_t>());
  }
  proposal->variant.group = block->get<uint64_t>();
  return proposal->variant.group != 0;
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

std::vector<std::byte> Restated(const std::string& state, std::span<const uint64_t> shape) {
  auto json = ParseJson(state, {}, ErrorKind::kInvalidConfig);
  if (!json) return {};
  (*json)["shape"] = std::vector<uint64_t>(shape.begin(), shape.end());
  const std::string text = DumpSpaced(*json);
  const auto* bytes = reinterpret_cast<const std::byte*>(text.data());
  return {bytes, bytes + text.size()};
}

// ---- 4-bit ---------------------------------------------------------------------------------------------------------

std::optional<uint64_t> Elements(std::span<const uint64_t> shape) {
  uint64_t count = 1;
  for (const uint64_t size : shape) {
    const auto product = CheckedMul(count, size);
    if (!product) return std::nullopt;
    count = *product;
  }
  return count;
}

// A flattened tensor with one element for `share` values: a range of the first dimension is a range of it.
std::vector<Form> FlattenedForms(const Shape& logical, uint64_t share, bool column) {
  const auto total = Elements(logical);
  const uint64_t row = Elements(std::span(logical).subspan(1)).value_or(0);
  if (!total || row == 0) return {};
  const uint64_t common = std::gcd(share, row);
  Axis rows{0, share / common, row / common};
  const uint64_t stored = CeilDiv(*total, share);
  // The last element may stand for less than its share, so that whole units do not add up to what is stored.
  if (rows.multiple > 1 && *total % share != 0)
    rows = WholeAxis(0, logical[0], stored, "its last element stands for values of several rows");
  Axes axes(logical.size(), WholeAxis(0, 1, 1, kFlattened));
  axes[0] = rows;
  return {Form{column ? Shape{stored, 1} : Shape{stored}, std::move(axes)}};
}

// A list of any length; of a nested one nothing can be cut.
Form ListForm(const Shape& logical, uint64_t size, bool nested) {
  Axes axes(logical.size());
  if (nested) axes.assign(logical.size(), WholeAxis(0, 1, 1, kNested));
  return {{size}, std::move(axes)};
}

void Add4Bit(const Proposal& proposal, std::vector<Part>* parts) {
  const Shape& logical = proposal.shape;
  const bool nested = proposal.variant.nested;
  parts->push_back({Role::kValues, leaf::kWeight, {DType::kU8}, FlattenedForms(logical, 2, true)});
  std::vector<Form> absmax = FlattenedForms(logical, proposal.variant.group, false);
  for (Form& form : absmax) {
    for (auto& axis : form.axes) axis->whole = nested ? kNested : axis->whole;
  }
  parts->push_back({Role::kScale, kAbsmax, nested ? DTypes{DType::kU8} : DTypes{DType::kF32}, std::move(absmax)});
  for (const std::string_view leaf : {kStateNf4, kStateFp4}) {
    Part state{Role::kState, leaf, {DType::kU8}, {ListForm(logical, kAnySize, false)}, false};
    state.restate = [text = proposal.state](std::span<const uint64_t> shape) { return Restated(text, shape); };
    parts->push_back(std::move(state));
  }
  parts->push_back({Role::kLookup, kQuantMap, {DType::kF32}, {ListForm(logical, 16, false)}, false});
  if (!nested) return;
  parts->push_back({Role::kNestedScale, kNestedAbsmax, {DType::kF32}, {ListForm(logical, kAnySize, true)}});
  parts->push_back({Role::kNestedLookup, kNestedMap, {DType::kF32}, {ListForm(logical, 256, false)}, false});
}

void Propose4Bit(const StoredModule& module, const StoredLeaf& state, std::vector<Proposal>* proposals) {
  Proposal proposal{FormatId::kBitsAndBytes4Bit, {}, {}};
  proposal.variant.granularity = Granularity::kGroups;
  proposal.variant.bits = 4;
  proposal.variant.nested = module.Has(kNestedAbsmax);
  const auto text = module.Read(state);
  if (!text || !ReadState(*text, &proposal)) {
    proposal.shape = {module.value().shape.begin(), module.value().shape.end()};
    proposal.variant.group = std::max<uint64_t>(proposal.variant.group, 1);
    proposal.misfit = text ? "quant_state states no shape and blocksize" : "quant_state can't be read";
  } else {
    proposal.state = *text;
  }
  proposals->push_back(std::move(proposal));
}

// ---- both ----------------------------------------------------------------------------------------------------------

std::vector<Part> BnbParts(const Proposal& proposal) {
  std::vector<Part> parts;
  parts.reserve(8);
  if (proposal.format == FormatId::kBitsAndBytes4Bit) {
    Add4Bit(proposal, &parts);
  } else {
    parts.push_back({Role::kValues, leaf::kWeight, {DType::kI8}, {SameForm(proposal.shape)}});
    parts.push_back({Role::kScale, kScb, {DType::kF32, DType::kF16, DType::kBF16}, {RowForms(proposal.shape)[0]}});
    parts.push_back(ScalarPart(Role::kStorageKind, kStorage, {DType::kU8, DType::kI64}, proposal.shape, false));
  }
  AddActivationScales(proposal.shape, &parts);
  return parts;
}

const StoredLeaf* FindState(const StoredModule& module) {
  const auto it = std::find_if(module.leaves.begin(), module.leaves.end(),
                               [](const StoredLeaf& stored) { return stored.leaf.starts_with(kStateLeaf); });
  return it == module.leaves.end() ? nullptr : &*it;
}

void Propose(const StoredModule& module, std::vector<Proposal>* proposals) {
  const auto& value = module.value();
  if (!module.HasOwnName()) return;
  if (module.Has(kScb) && value.dtype == DType::kI8 && value.shape.size() >= 2) {
    Proposal proposal{FormatId::kBitsAndBytes8Bit, {value.shape.begin(), value.shape.end()}, {}};
    proposal.variant.granularity = Granularity::kRows;
    proposal.variant.bits = 8;
    proposals->push_back(std::move(proposal));
    return;
  }
  const StoredLeaf* state = FindState(module);
  if (module.Has(kAbsmax) && state != nullptr) Propose4Bit(module, *state, proposals);
}

std::optional<std::string> Missing(const StoredModule& module) {
  const bool state = FindState(module) != nullptr;
  const bool absmax = module.Has(kAbsmax);
  if (state && !absmax) return "weight.absmax is missing beside weight.quant_state";
  if (absmax && !state) return "weight.quant_state is missing: nothing else states the weight's shape";
  if (module.Has(kStorage) && !module.Has(kScb)) return "SCB is missing beside weight_format";
  return std::nullopt;
}

}  // namespace

const Family kBitsAndBytesFamily = {kFormats, BnbParts, Propose, Missing};

}  // namespace quantport
