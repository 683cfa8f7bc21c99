// What tensors of quantized weights are called: the names that several formats have in common. A format's own ones
// stand in its file.
#pragma once

#include <string_view>

namespace quantport::leaf {

inline constexpr std::string_view kWeight = "weight";
inline constexpr std::string_view kWeightPacked = "weight_packed";
inline constexpr std::string_view kQWeight = "qweight";
inline constexpr std::string_view kBlocks = "blocks";
inline constexpr std::string_view kWeightScale = "weight_scale";
inline constexpr std::string_view kWeightScale2 = "weight_scale_2";
inline constexpr std::string_view kWeightScaleInv = "weight_scale_inv";
inline constexpr std::string_view kWeightGlobalScale = "weight_global_scale";
inline constexpr std::string_view kWeightZeroPoint = "weight_zero_point";
inline constexpr std::string_view kScales = "scales";
inline constexpr std::string_view kQZeros = "qzeros";
inline constexpr std::string_view kInputScale = "input_scale";
inline constexpr std::string_view kInputZeroPoint = "input_zero_point";
inline constexpr std::string_view kInputGlobalScale = "input_global_scale";
inline constexpr std::string_view kActivationScale = "activation_scale";
inline constexpr std::string_view kOutputScale = "output_scale";
inline constexpr std::string_view kPreQuantScale = "pre_quant_scale";

}  // namespace quantport::leaf
