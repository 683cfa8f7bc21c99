// The rows of the layout table: how each format stores a logical weight.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "layout/logical_weight.h"

namespace quantport {

// Decides the layout from the parts' leaves, dtypes and shapes, and fills the logical shape and every part's axes.
// parts[0] is the value; tensors that match no row make it Layout::kOther.
void FillLayout(LogicalWeight* weight, uint64_t fp8_block_size);

// One tensor that stands for itself: logical shape and axes are those of storage.
void FillPlainLayout(LogicalWeight* weight);

// What the stored tensors call for and don't have, for example "weight_scale_2 is missing". `quantized`: a config
// says that the checkpoint is quantized, so that packed bytes without any scale are a defect as well.
std::optional<std::string> MissingCompanion(const LogicalWeight& weight, bool quantized);

}  // namespace quantport
