#include "report/planned.h"

#include <algorithm>
#include <filesystem>

namespace quantport {
namespace {

// How a tensor's bytes differ from those of its sources.
std::string_view Computed(const PlannedTensor& tensor) {
  const auto stepped = [](const auto& part) { return part.step != 0; };
  if (tensor.gathered && !tensor.gathered->literal.empty()) return "stated";
  if (std::any_of(tensor.runs.begin(), tensor.runs.end(), stepped)) return "rescaled";
  const auto zeros = [](const Run& run) { return run.tensor == kZeros; };
  if (std::any_of(tensor.runs.begin(), tensor.runs.end(), zeros)) return "padded";
  if (!tensor.gathered) return "";
  const auto& blocks = tensor.gathered->blocks;
  return std::any_of(blocks.begin(), blocks.end(), stepped) ? "reordered, rescaled" : "reordered";
}

std::string FileName(const PlanSource& source) { return std::filesystem::path(source.address).filename().string(); }

// A block's elements need not lie together; it begins at `offset` and has so many bytes.
SourceRange BlockRange(const Plan& plan, const PlannedTensor& tensor, const Block& block) {
  const SourceTensor& source = plan.tensors[block.tensor];
  uint64_t elements = 1;
  for (const BlockDim& dim : block.dims) elements *= dim.extent;
  return {FileName(plan.sources[source.source]), source.name, source.offset + block.offset / 8,
          elements * static_cast<uint64_t>(DTypeBits(tensor.info.dtype)) / 8};
}

}  // namespace

std::vector<PlannedTensorReport> PlannedTensors(const Plan& plan) {
  std::vector<PlannedTensorReport> rows;
  for (const PlannedFile& file : plan.files) {
    for (const PlannedTensor& tensor : file.tensors) {
      PlannedTensorReport row{file.name,
                              tensor.info.name,
                              tensor.info.dtype,
                              tensor.info.shape,
                              file.header.size() + tensor.info.begin,
                              tensor.info.end - tensor.info.begin,
                              std::string(FormatName(tensor.format)),
                              {},
                              std::string(Computed(tensor))};
      for (const Run& run : tensor.runs) {
        if (run.tensor == kZeros) continue;
        const SourceTensor& source = plan.tensors[run.tensor];
        row.sources.push_back(
            {FileName(plan.sources[source.source]), source.name, source.offset + run.source, run.bytes});
      }
      if (tensor.gathered) {
        for (const Block& block : tensor.gathered->blocks) {
          if (block.tensor != kZeros) row.sources.push_back(BlockRange(plan, tensor, block));
        }
      }
      rows.push_back(std::move(row));
    }
  }
  return rows;
}

}  // namespace quantport
