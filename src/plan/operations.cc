#include "plan/operations.h"

#include <fmt/format.h>

#include <algorithm>

namespace quantport {
namespace {

Error Unsupported(std::string message, std::string hint = {}) {
  return Error{ErrorKind::kQuantConversionUnsupported, std::move(message), {}, {}, std::move(hint)};
}

class OperationRunner {
 public:
  OperationRunner(Strands strands, size_t targets, const std::vector<uint64_t>* hub_shape,
                  std::vector<EqualBytes>* checks)
      : strands_(std::move(strands)), targets_(targets), hub_shape_(hub_shape), checks_(checks) {}

  Status Run(const ChunkOp& op) {
    if (op.num_shards_attribute)
      return Unsupported(fmt::format("Chunk into config.{} parts is not carried out yet", *op.num_shards_attribute));
    if (strands_.size() != 1) return Unsupported("Chunk of several tensors at once");
    Strands parts(targets_);
    for (const Entry& entry : strands_[0]) {
      for (size_t k = 0; k < targets_; ++k) {
        if (entry.piece && entry.piece->parts > 1) {
          if (auto status = TakePiece(op, entry, k, &parts[k]); !status) return status;
          continue;
        }
        // A piece has no expert dimension any more, so the cut's dimension moves down by one.
        const int dim = entry.piece ? op.dim - 1 : op.dim;
        if (dim < 0)
          return Unsupported(fmt::format("Chunk along dimension {} of an expert that is stored alone", op.dim));
        auto part = Chunk(entry.weight, static_cast<size_t>(dim), targets_, k);
        if (!part) return part.errors();
        parts[k].push_back({std::move(*part), entry.piece, entry.index});
      }
    }
    strands_ = std::move(parts);
    return {};
  }

  Status Run(const ConcatenateOp& op) {
    if (op.num_shards_attribute)
      return Unsupported(
          fmt::format("Concatenate of config.{} parts is not carried out yet", *op.num_shards_attribute));
    std::vector<LogicalWeight> weights;
    for (std::vector<Entry>& strand : strands_) {
      if (strand.size() != 1) return Unsupported("Concatenate of lists of tensors is not carried out yet");
      weights.push_back(std::move(strand[0].weight));
    }
    auto joined = ConcatenateWeights(weights, static_cast<size_t>(op.dim), checks_);
    if (!joined) return joined.errors();
    strands_ = {{Entry{std::move(*joined), std::nullopt, std::nullopt}}};
    return {};
  }

  Status Run(const SplitModulelistOp& op) {
    for (std::vector<Entry>& strand : strands_) {
      std::vector<Entry> experts;
      for (Entry& entry : strand) {
        if (entry.piece) {
          if (op.dim != 0)
            return Unsupported(
                fmt::format("SplitModulelist along dimension {} of experts that are stored expanded", op.dim));
          if (entry.piece->parts > 1) return Unsupported("an expert is stored in parts that the hub keeps fused");
          experts.push_back({std::move(entry.weight), std::nullopt, entry.piece->index});
          continue;
        }
        const auto dim = static_cast<size_t>(op.dim);
        if (dim >= entry.weight.shape.size())
          return Unsupported(
              fmt::format("SplitModulelist along dimension {} of a weight with {}", dim, entry.weight.shape.size()));
        if (entry.weight.shape[dim] == 0) return Unsupported("a stack of 0 experts would leave nothing");
        for (uint64_t i = 0; i < entry.weight.shape[dim]; ++i) {
          auto expert = Unstack(entry.weight, dim, i);
          if (!expert) return expert.errors();
          experts.push_back({std::move(*expert), std::nullopt, i});
        }
      }
      strand = std::move(experts);
    }
    return {};
  }

  Status Run(const MergeModulelistOp& op) {
    for (std::vector<Entry>& strand : strands_) {
      std::stable_sort(strand.begin(), strand.end(), [](const Entry& a, const Entry& b) { return a.index < b.index; });
      std::vector<LogicalWeight> weights;
      for (Entry& entry : strand) weights.push_back(std::move(entry.weight));
      auto stacked = StackWeights(weights, static_cast<size_t>(op.dim));
      if (!stacked) return stacked.errors();
      strand = {Entry{std::move(*stacked), std::nullopt, std::nullopt}};
    }
    return {};
  }

  // With check_dims, loading transposes only a tensor that does not fit its parameter. What the hub has can only be
  // known from the hub: without a reference, or where its shape is the same, nothing was transposed.
  Status Run(const TransposeOp& op) {
    if (!op.check_dims) return Unsupported("Transpose is not carried out yet");
    for (const std::vector<Entry>& strand : strands_) {
      for (const Entry& entry : strand) {
        std::vector<uint64_t> swapped = entry.weight.shape;
        if (static_cast<size_t>(std::max(op.dim0, op.dim1)) >= swapped.size()) continue;
        std::swap(swapped[static_cast<size_t>(op.dim0)], swapped[static_cast<size_t>(op.dim1)]);
        if (hub_shape_ != nullptr && *hub_shape_ == swapped && swapped != entry.weight.shape) {
          return Unsupported("the reference has this weight transposed; Transpose is not carried out yet");
        }
      }
    }
    return {};
  }

  // Operations whose lift the layouts allow but that no code carries out yet.
  template <typename Op>
  Status Run(const Op& op) {
    return Unsupported(fmt::format("{} is not carried out yet", OperationName(Operation(op))));
  }

  Strands Take() { return std::move(strands_); }

 private:
  // The cut that Chunk would make was made by whoever expanded the experts.
  Status TakePiece(const ChunkOp& op, const Entry& entry, size_t target, std::vector<Entry>* part) {
    if (op.dim != 1 || entry.piece->parts != targets_) {
      return Unsupported(fmt::format("the experts are stored in {} parts, the hub has {} along dimension {}",
                                     entry.piece->parts, targets_, op.dim));
    }
    if (entry.piece->part == target)
      part->push_back({entry.weight, ExpertPiece{entry.piece->index, 0, 1}, entry.index});
    return {};
  }

  Strands strands_;
  size_t targets_;
  const std::vector<uint64_t>* hub_shape_;
  std::vector<EqualBytes>* checks_;
};

}  // namespace

Result<Strands> RunOperations(Strands strands, const std::vector<Operation>& operations, size_t targets,
                              const std::vector<uint64_t>* hub_shape, std::vector<EqualBytes>* checks) {
  OperationRunner runner(std::move(strands), targets, hub_shape, checks);
  for (const Operation& operation : operations) {
    auto status = std::visit([&](const auto& op) { return runner.Run(op); }, operation);
    if (status) continue;
    for (Error& error : status.errors()) error.message = fmt::format("{}: {}", OperationName(operation), error.message);
    return status.errors();
  }
  return runner.Take();
}

}  // namespace quantport
