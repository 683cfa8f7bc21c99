// gpt-oss MXFP4 experts: the parameter P of shape [E, in, out] is stored transposed, each block of 32 inputs as a row
// of 16 bytes:
//   P_blocks  U8  [E, out, in/32, 16]   E2M1 values, input 2k in the low half of a byte
//   P_scales  U8  [E, out, in/32]       E8M0
// The rows of gate_up_proj alternate between gate and up. Read row by row as they are stored, the weight is [E, out,
// in]: a variant with inputs_first speaks of the parameter, one without of these rows.
#include <fmt/format.h>

#include <utility>

#include "format/coded_weight.h"
#include "format/families.h"
#include "format/forms.h"
#include "format/leaves.h"

namespace quantport {
namespace {

constexpr Format kFormats[] = {{FormatId::kMxfp4Blocks, "MXFP4_BLOCKS"}};
constexpr uint64_t kBlock = 32;

std::vector<Part> BlockParts(const Proposal& proposal) {
  Axes axes = {Axis{0, 1}, Axis{1, 1}, Axis{2, kBlock}};
  if (proposal.variant.inputs_first) std::swap(axes[1], axes[2]);
  Form blocks = FormOf(proposal.shape, 4, axes);
  blocks.shape[3] = kBlock / 2;
  std::vector<Part> parts;
  parts.push_back({Role::kValues, leaf::kBlocks, {DType::kU8}, {std::move(blocks)}});
  parts.push_back({Role::kScale, leaf::kScales, kPowers, {FormOf(proposal.shape, 3, axes)}});
  return parts;
}

void Propose(const StoredModule& module, std::vector<Proposal>* proposals) {
  const auto& blocks = module.value().shape;
  if (module.value().leaf != leaf::kBlocks || !module.Has(leaf::kScales)) return;
  Proposal proposal{FormatId::kMxfp4Blocks, {}, {}};
  proposal.variant.granularity = Granularity::kGroups;
  proposal.variant.group = kBlock;
  proposal.variant.inputs_first = true;
  if (blocks.size() == 4) {
    proposal.shape = {blocks[0], blocks[2] * kBlock, blocks[1]};
  } else {
    proposal.shape = {0, 0, 0};
    proposal.misfit = fmt::format("blocks has {} dimensions, and not experts, rows, blocks and bytes", blocks.size());
  }
  proposals->push_back(std::move(proposal));
}

std::optional<std::string> Written(const Encoding&, const Shape& shape, Variant* variant) {
  if (shape.size() != 3) return "MXFP4_BLOCKS of a linear";
  variant->granularity = Granularity::kGroups;
  variant->group = kBlock;
  return std::nullopt;
}

}  // namespace

const Family kGptOssFamily = {kFormats, BlockParts, Propose, nullptr, Written};

}  // namespace quantport
