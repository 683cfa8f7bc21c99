#include "recipe/format.h"

#include <fmt/format.h>

namespace quantport {
namespace {

const NumberBits kE4M3 = NumberBits::Float(4, 3);
const NumberBits kE2M1 = NumberBits::Float(2, 1);
const NumberBits kE8M0 = NumberBits::Float(8, 0);

FormatOrReason Refuse(std::string reason) { return {FormatId::kPlain, std::move(reason)}; }

int LastBlock(const std::optional<BlockSizes>& blocks) {
  if (!blocks) return 0;
  const auto it = blocks->axes.find(-1);
  return it == blocks->axes.end() ? 0 : it->second.value_or(0);
}

bool OnlyAlongInputs(const BlockSizes& blocks) { return blocks.axes.size() == 1 && LastBlock(blocks) > 0; }

bool IsPerTensorFp8(const QuantizerAttributes& quantizer) {
  return quantizer.num_bits == kE4M3 && !quantizer.block_sizes && quantizer.axis.empty();
}

// What the weight's own settings rule out, whatever the input's are.
std::string WeightProblem(const QuantizerAttributes& weight) {
  if (!weight.backend.empty()) return fmt::format("the backend {}", weight.backend);
  if (weight.rotate || weight.bias) return "a weight that is rotated or has a bias";
  if (weight.unsigned_range || weight.narrow_range) return "an unsigned or narrow range for weights";
  if (weight.constant_amax || weight.use_constant_amax) return "a constant amax for weights";
  if (weight.dynamic) return "weights that are quantized while serving";
  return {};
}

FormatOrReason Fp8Format(const QuantizerAttributes& weight, const QuantizerAttributes* input) {
  if (!weight.block_sizes) {
    if (weight.axis.empty()) {
      if (input != nullptr && !IsPerTensorFp8(*input)) return Refuse("an FP8 weight whose input is not FP8 per tensor");
      return {FormatId::kFp8PerTensor, {}};
    }
    if (weight.axis != std::vector<int>{0}) return Refuse("FP8 weights with scales along another axis than 0");
    if (input != nullptr && input->num_bits != kE4M3) return Refuse("an FP8 weight per channel whose input is not FP8");
    return {FormatId::kFp8PerChannel, {}};
  }
  const BlockSizes& blocks = *weight.block_sizes;
  if (blocks.dynamic && blocks.scale_bits == kE8M0) {
    if (!OnlyAlongInputs(blocks) || LastBlock(blocks) != 32) return Refuse("MXFP8 in other blocks than 32 inputs");
    return {FormatId::kMxfp8, {}};
  }
  // ModelOpt's export takes one size for both axes.
  const auto rows = blocks.axes.find(-2);
  if (blocks.axes.size() != 2 || rows == blocks.axes.end() || LastBlock(blocks) == 0 ||
      rows->second != LastBlock(blocks))
    return Refuse("FP8 blocks that are not square");
  if (blocks.dynamic || blocks.scale_bits) return Refuse("FP8 blocks whose scales are quantized");
  return {FormatId::kFp8Block, {}};
}

FormatOrReason Fp4Format(const QuantizerAttributes& weight, const QuantizerAttributes* input) {
  if (!weight.block_sizes || !OnlyAlongInputs(*weight.block_sizes) || !weight.block_sizes->scale_bits)
    return Refuse("FP4 weights without blocks of inputs and scale_bits");
  const BlockSizes& blocks = *weight.block_sizes;
  const bool fp8_input = input != nullptr && input->num_bits == kE4M3 && !input->block_sizes;
  if (blocks.scale_bits == kE4M3) {
    if (input == nullptr) return {FormatId::kNvfp4WeightOnly, {}};
    if (blocks.dynamic && fp8_input) return {FormatId::kW4A8Nvfp4Fp8, {}};
    if (input->num_bits != kE2M1)
      return Refuse(fmt::format("an NVFP4 weight with an input of {}", ToString(input->num_bits)));
    return {FormatId::kNvfp4, {}};
  }
  if (blocks.scale_bits != kE8M0) return Refuse("FP4 weights with scales of other formats than e4m3 and e8m0");
  if (!blocks.dynamic || LastBlock(blocks) != 32) return Refuse("MXFP4 in other blocks than 32 dynamic ones");
  if (fp8_input) return {FormatId::kW4A8Mxfp4Fp8, {}};
  return {FormatId::kMxfp4, {}};
}

FormatOrReason IntFormat(const QuantizerAttributes& weight, const QuantizerAttributes* input) {
  if (weight.num_bits.integer == 4) {
    if (!weight.block_sizes || !OnlyAlongInputs(*weight.block_sizes) || weight.block_sizes->dynamic)
      return Refuse("INT4 weights without static groups of inputs");
    if (input != nullptr) return Refuse("INT4 weights with a quantized input");
    return {FormatId::kInt4, {}};
  }
  if (weight.num_bits.integer != 8) return Refuse(fmt::format("{} weights", ToString(weight.num_bits)));
  if (weight.block_sizes) return Refuse("INT8 weights in blocks");
  if (weight.axis != std::vector<int>{0}) return Refuse("INT8 weights without a scale per output channel");
  if (input == nullptr) return {FormatId::kInt8, {}};
  if (input->num_bits != NumberBits() || input->block_sizes)
    return Refuse("INT8 weights whose input is not INT8 per tensor");
  return {FormatId::kInt8SmoothQuant, {}};
}

FormatOrReason TwoStageFormat(const std::vector<QuantizerAttributes>& weight) {
  const bool known = weight.size() == 2 && weight[0].num_bits == NumberBits{4, 0, 0} && weight[1].num_bits == kE4M3 &&
                     LastBlock(weight[0].block_sizes) > 0;
  if (!known) return Refuse("weights quantized several times, other than INT4 in groups and then FP8");
  return {FormatId::kW4A8Awq, {}};
}

}  // namespace

FormatOrReason FormatOf(const std::vector<QuantizerAttributes>& weight, const QuantizerAttributes* input) {
  for (const QuantizerAttributes& stage : weight) {
    if (std::string problem = WeightProblem(stage); !problem.empty()) return Refuse(std::move(problem));
  }
  if (weight.size() != 1) return TwoStageFormat(weight);
  if (!weight[0].num_bits.IsFloat()) return IntFormat(weight[0], input);
  if (weight[0].num_bits == kE4M3) return Fp8Format(weight[0], input);
  if (weight[0].num_bits == kE2M1) return Fp4Format(weight[0], input);
  return Refuse(fmt::format("{} weights", ToString(weight[0].num_bits)));
}

int BlockSizeOf(const std::vector<QuantizerAttributes>& weight) {
  return weight.empty() ? 0 : LastBlock(weight[0].block_sizes);
}

}  // namespace quantport
