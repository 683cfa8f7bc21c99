#include "dialect/modelopt_formats.h"

#include <algorithm>
#include <iterator>

namespace quantport {
namespace {

constexpr ModelOptNumbers kFp8;
constexpr ModelOptNumbers kFp8Rows = {.per_channel = true};
constexpr ModelOptNumbers kInt8 = {.type = "int"};
constexpr ModelOptNumbers kInt8Rows = {.type = "int", .per_channel = true};
constexpr ModelOptNumbers kFp4 = {.bits = 4, .group_size = 16};
constexpr ModelOptNumbers kInt4 = {.bits = 4, .type = "int", .group_size = 128};

// Formats that ModelOpt gives no quant_algo of its own are written as its exporter calls them, and have no group. The
// groups of MXFP4 are said to be 16, and the FP8 inputs of W4A8_AWQ to have groups of their own, as ModelOpt says.
constexpr ModelOptFormat kFormats[] = {
    {FormatId::kFp8PerTensor, "fp8", "FP8", false, false, kFp8, kFp8},
    {FormatId::kFp8PerChannel, "fp8_pc_pt", "FP8_PER_CHANNEL_PER_TOKEN", false, false, kFp8, kFp8Rows},
    {FormatId::kFp8Block, "fp8_pb_wo", "fp8_pb_wo"},
    {FormatId::kMxfp8, "mxfp8", "MXFP8", true, false, ModelOptNumbers{.group_size = 32},
     ModelOptNumbers{.group_size = 32}},
    {FormatId::kMxfp4, "mxfp4", "mxfp4"},
    {FormatId::kMxfp4Blocks, "mxfp4", "mxfp4"},
    {FormatId::kNvfp4, "nvfp4", "NVFP4", true, false, kFp4, kFp4},
    {FormatId::kNvfp4WeightOnly, "w4a16_nvfp4", "W4A16_NVFP4", true, false, {}, kFp4},
    {FormatId::kW4A8Nvfp4Fp8, "w4a8_nvfp4_fp8", "W4A8_NVFP4_FP8", true, false, kFp8, kFp4},
    {FormatId::kW4A8Mxfp4Fp8, "w4a8_mxfp4_fp8", "W4A8_MXFP4_FP8", true, false, kFp8, kFp4},
    {FormatId::kInt8SmoothQuant, "int8_sq", "W8A8_SQ_PER_CHANNEL", false, false, kInt8, kInt8Rows},
    {FormatId::kInt8, "int8_wo", "W8A16", false, false, {}, kInt8},
    {FormatId::kInt4, "int4_awq", "W4A16_AWQ", true, true, {}, kInt4},
    {FormatId::kW4A8Awq, "w4a8_awq", "W4A8_AWQ", true, true, ModelOptNumbers{.group_size = 128},
     ModelOptNumbers{.bits = 4, .group_size = 128}},
};

Json NumbersJson(const ModelOptNumbers& numbers, int group_size) {
  Json json = Json::object({{"dynamic", false}, {"num_bits", numbers.bits}, {"type", numbers.type}});
  if (numbers.group_size > 0) json["group_size"] = group_size > 0 ? group_size : numbers.group_size;
  if (numbers.per_channel) json["strategy"] = "channel";
  return json;
}

}  // namespace

const ModelOptFormat* FindModelOptFormat(FormatId format) {
  const auto* const it = std::find_if(std::begin(kFormats), std::end(kFormats),
                                      [&](const ModelOptFormat& row) { return row.format == format; });
  return it == std::end(kFormats) ? nullptr : it;
}

std::string_view ModelOptFormatName(FormatId format) {
  const ModelOptFormat* row = FindModelOptFormat(format);
  return row == nullptr ? "" : row->name;
}

Json ModelOptGroup(std::string_view quant_algo, int group_size) {
  Json group = Json::object();
  const auto* const row = std::find_if(std::begin(kFormats), std::end(kFormats), [&](const ModelOptFormat& candidate) {
    return candidate.quant_algo == quant_algo && candidate.weights;
  });
  if (row == std::end(kFormats)) {
    group["quant_algo"] = quant_algo;
    return group;
  }
  if (row->inputs) group["input_activations"] = NumbersJson(*row->inputs, group_size);
  group["weights"] = NumbersJson(*row->weights, group_size);
  return group;
}

}  // namespace quantport
