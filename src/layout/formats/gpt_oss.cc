// gpt-oss MXFP4 experts: the parameter P of shape [E, in, out] is stored transposed, each block of 32 inputs as a row
// of 16 bytes:
//   P_blocks  U8  [E, out, in/32, 16]   E2M1 values, input 2k in the low half of a byte
//   P_scales  U8  [E, out, in/32]       E8M0
// The rows of gate_up_proj alternate between gate and up.
#include "layout/formats/formats.h"

namespace quantport {
namespace {

constexpr FormatLabel kLabels[] = {{FormatId::kMxfp4Blocks, "MXFP4_BLOCKS"}};
constexpr uint64_t kBlock = 32;

bool Recognize(const Candidate& candidate) {
  StoredPart* scale = candidate.Find("scales");
  const Shape& blocks = candidate.stored();
  if (candidate.value().leaf != "blocks" || candidate.dtype() != DType::kU8 || blocks.size() != 4 ||
      blocks[3] != kBlock / 2 || scale == nullptr || !IsPowerScale(scale->array.dtype))
    return false;
  const Shape& logical = candidate.weight->shape = {blocks[0], blocks[2] * kBlock, blocks[1]};
  const Axes axes = {Axis{0, 1}, Axis{2, kBlock}, Axis{1, 1}};
  candidate.weight->format = FormatId::kMxfp4Blocks;
  return Fit(scale, logical, axes) && FitLoosely(&candidate.value(), logical, axes);
}

}  // namespace

const Format kGptOssFormat = {kLabels, Recognize};

}  // namespace quantport
