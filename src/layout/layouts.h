// The table of layouts: how each format stores a logical weight. A format is one file in formats/ and one line here.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "layout/logical_weight.h"

namespace quantport {

// What the configs say, and what else helps to tell how tensors are stored. All of it may be unknown.
struct RecognizeOptions {
  bool quantized = false;                         // a weight of packed bytes without scales is then a defect
  std::array<uint64_t, 2> fp8_tile = {128, 128};  // rows and columns (weight_block_size); ModelOpt does not record it
  uint64_t group_size = 0;                        // values that share a scale; 0: unknown
  uint64_t bits = 0;                              // of a packed integer; 0: unknown
  bool ordered_groups = false;                    // GPTQ without activation order: column i is of group i / group_size
  std::string algorithm = {};                     // quant_algo, "" where unknown
  std::function<std::optional<std::string>(uint32_t tensor)> read = {};  // the bytes of a small tensor of the table
};

// Decides the layout from the parts' leaves, dtypes and shapes, and fills the logical shape and every part's axes.
// parts[0] is the value and `key` its name; tensors that match no row make it FormatId::kOther.
void FillLayout(LogicalWeight* weight, std::string_view key, const RecognizeOptions& options);

// One tensor that stands for itself: logical shape and axes are those of storage.
void FillPlainLayout(LogicalWeight* weight);

// What the stored tensors call for and don't have, for example "weight_scale_2 is missing". `quantized`: a config
// says that the checkpoint is quantized, so that packed bytes without any scale are a defect as well.
std::optional<std::string> MissingCompanion(const LogicalWeight& weight, bool quantized);

}  // namespace quantport
