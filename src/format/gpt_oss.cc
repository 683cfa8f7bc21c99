// gpt-oss MXFP4 experts: the parameter P of shape [E, in, out] is stored transposed, each block of 32 inputs as a row
// of 16 bytes:
//   P_blocks  U8  [E, out, in/32, 16]   E2M1 values, input 2k in the low half of a byte
//   P_scales  U8  [E, out, in/32]       E8M0
// The rows of gate_up_proj alternate between gate and up.
#include <fmt/format.h>

#include "format/families.h"
#include "format/forms.h"
#include "format/leaves.h"

namespace quantport {
namespace {

constexpr Format kFormats[] = {{FormatId::kMxfp4Blocks, "MXFP4_BLOCKS"}};
constexpr uint64_t kBlock = 32;

std::vector<Part> BlockParts(const Proposal& proposal) {
  const Axes axes = {Axis{0, 1}, Axis{2, kBlock}, Axis{1, 1}};
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

}  // namespace

const Family kGptOssFamily = {kFormats, BlockParts, Propose};

}  // namespace quantport
