// A tensor that is not quantized. Calibrated but unquantized linears keep their activation scales.
#include <fmt/format.h>

#include "format/families.h"
#include "format/forms.h"
#include "format/leaves.h"

namespace quantport {
namespace {

constexpr Format kFormats[] = {{FormatId::kPlain, "plain"}};
constexpr DTypes kFloats = {DType::kBF16, DType::kF16, DType::kF32, DType::kF64};

std::vector<Part> PlainParts(const Proposal& proposal) {
  std::vector<Part> parts;
  parts.push_back({Role::kValues, leaf::kWeight, kFloats, {SameForm(proposal.shape)}});
  AddActivationScales(proposal.shape, &parts);
  return parts;
}

// Codes that stand by themselves are no numbers. Parameters under names of their own may be indices and masks, and so
// may a vector.
bool MayBeCodes(const StoredModule& module) {
  const StoredLeaf& value = module.value();
  const bool bytes = DTypeBits(value.dtype) <= 8 && value.dtype != DType::kBool;
  if (value.shape.size() < 2 || kFloats.Has(value.dtype)) return false;
  return value.leaf.empty() ? bytes && (IsFloat(value.dtype) || module.options.quantized) : value.dtype != DType::kBool;
}

void Propose(const StoredModule& module, std::vector<Proposal>* proposals) {
  if (!module.HasOwnName()) return;
  const StoredLeaf& value = module.value();
  Proposal proposal{FormatId::kPlain, {value.shape.begin(), value.shape.end()}, {}};
  if (MayBeCodes(module))
    proposal.misfit =
        fmt::format("the values are {}, which are codes, and no format has them so", DTypeName(value.dtype));
  proposals->push_back(std::move(proposal));
}

std::optional<std::string> Written(const Encoding&, const Shape&, Variant*) { return std::nullopt; }

}  // namespace

const Family kPlainFamily = {kFormats, PlainParts, Propose, nullptr, Written};

}  // namespace quantport
