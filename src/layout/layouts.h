// Which format a weight's tensors are in.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "format/match.h"
#include "layout/logical_weight.h"

namespace quantport {

// Decides the layout from the parts' leaves, dtypes and shapes, and fills the logical shape and every part's axes.
// parts[0] is the value and `key` its name; tensors that are no format's make it FormatId::kUnrecognized.
void FillLayout(LogicalWeight* weight, std::string_view key, const RecognizeOptions& options, PartsMemo* memo);

// One tensor that stands for itself: logical shape and axes are those of storage.
void FillPlainLayout(LogicalWeight* weight);

// A tensor `leaf` stands below the module that no format has: what the codes mean can't be told any more.
void AddStray(std::string_view leaf, LogicalWeight* weight);

// What the stored tensors call for and don't have, for example "weight_scale_2 is missing". Where a
// config says that the checkpoint is quantized, packed bytes without any scale are a defect as well.
std::optional<std::string> MissingCompanion(const LogicalWeight& weight, std::string_view key,
                                            const RecognizeOptions& options);

}  // namespace quantport
