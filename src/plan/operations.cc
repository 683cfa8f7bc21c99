#include "plan/operations.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/checked.h"
#include "layout/reorder.h"

namespace quantport {
namespace {

Error Unsupported(std::string message, std::string hint = {}) {
  return Error{ErrorKind::kQuantConversionUnsupported, std::move(message), {}, {}, std::move(hint)};
}

// Experts or layers that one tensor may come apart into. A tensor without elements may state any number of them.
constexpr uint64_t kMaxParts = 1 << 16;

// transformers does each of these on plain tensors; source: core_model_loading.py, the classes of the same names.
class OperationRunner {
 public:
  OperationRunner(Strands strands, const OperationContext& context)
      : strands_(std::move(strands)), patterns_(*context.sources), context_(context) {}

  Status Run(const ChunkOp& op) {
    if (strands_.size() != 1) return Unsupported("several tensors at once");
    if (op.num_shards_attribute) return ChunkIntoList(op);
    const size_t targets = context_.targets->size();
    Strands parts(targets);
    for (Entry& entry : strands_[0]) {
      if (entry.piece && entry.piece->parts > 1) {
        if (auto status = TakePiece(op, std::move(entry), &parts); !status) return status;
        continue;
      }
      for (size_t k = 0; k < targets; ++k) {
        // A piece has no expert dimension any more, so the cut's dimension moves down by one.
        const int dim = entry.piece ? op.dim - 1 : op.dim;
        if (dim < 0) return Unsupported(fmt::format("dimension {} of an expert that is stored alone", op.dim));
        auto part = CutForTarget(entry.weight, static_cast<size_t>(dim), k);
        if (!part) return part.errors();
        parts[k].push_back({std::move(*part), entry.piece, entry.index, entry.unit});
      }
    }
    SetStrands(std::move(parts), *context_.targets);
    return {};
  }

  Status Run(const ConcatenateOp& op) {
    std::vector<LogicalWeight> weights;
    for (std::vector<Entry>& strand : strands_) {
      SortByIndex(&strand);
      for (Entry& entry : strand) {
        if (entry.piece) return Unsupported("experts that are stored one by one, which the hub keeps in one tensor");
        weights.push_back(std::move(entry.weight));
      }
    }
    if (weights.empty()) return Unsupported("there is nothing to put together");
    if (op.num_shards && *op.num_shards != weights.size())
      return Unsupported(fmt::format("config.json says {} is {}, and there are {} parts", *op.num_shards_attribute,
                                     *op.num_shards, weights.size()));
    auto joined = ConcatenateWeights(weights, static_cast<size_t>(op.dim), context_.shared);
    if (!joined) return joined.errors();
    SetStrands({{Whole(std::move(*joined))}}, {context_.targets->front()});
    return {};
  }

  Status Run(const SplitModulelistOp& op) {
    for (std::vector<Entry>& strand : strands_) {
      std::vector<Entry> experts;
      for (Entry& entry : strand) {
        auto status = entry.piece ? TakeExpert(op, std::move(entry), &experts)
                                  : UnstackAll(entry.weight, static_cast<size_t>(op.dim), &experts);
        if (!status) return status;
      }
      strand = std::move(experts);
    }
    return {};
  }

  Status Run(const MergeModulelistOp& op) {
    for (std::vector<Entry>& strand : strands_) {
      SortByIndex(&strand);
      auto stacked = StackRange(strand, 0, strand.size(), op.dim);
      if (!stacked) return stacked.errors();
      strand = {Whole(std::move(*stacked))};
    }
    return {};
  }

  // With check_dims, loading transposes only a tensor that does not fit its parameter. What the other side has can
  // only be known from there: where its shape is unknown or the same, nothing is transposed.
  Status Run(const TransposeOp& op) {
    const auto a = static_cast<size_t>(op.dim0);
    const auto b = static_cast<size_t>(op.dim1);
    return ForEach([&](const LogicalWeight& weight, size_t strand) -> Result<LogicalWeight> {
      const bool swap = context_.loading ? !FitsParameter(op, weight.shape, strand)
                                         : IsSwapped(weight.shape, a, b, KnownShape(strand));
      if (op.check_dims && !swap) return weight;
      return TransposeWeight(weight, a, b);
    });
  }

  Status Run(const InterleaveOp& op) {
    const auto dim = static_cast<size_t>(op.dim);
    return ForEach([&](const LogicalWeight& weight, size_t) -> Result<LogicalWeight> {
      if (dim >= weight.shape.size() || weight.shape[dim] % 2 != 0)
        return Unsupported(fmt::format("a weight of shape [{}] has no two halves along dimension {}",
                                       fmt::join(weight.shape, ", "), dim));
      const uint64_t half = weight.shape[dim] / 2;
      return op.inverse ? TransposeStretches(weight, dim, 2, half) : TransposeStretches(weight, dim, half, 2);
    });
  }

  Status Run(const PermuteForRopeOp& op) {
    return ForEach([&](const LogicalWeight& weight, size_t strand) -> Result<LogicalWeight> {
      const auto& names = op.permute_layer_names;
      const bool named = names.empty() || std::any_of(names.begin(), names.end(), [&](const std::string& name) {
                           return patterns_[strand].find(name) != std::string::npos;
                         });
      if (!named || weight.shape.empty() || weight.shape.size() > 2) return weight;
      if (!op.num_heads)
        return Unsupported("config.json does not say how many attention heads there are",
                           fmt::format("add num_attention_heads to {}", op.subconfig_key.value_or("config.json")));
      const uint64_t half = *op.num_heads == 0 ? 0 : weight.shape[0] / *op.num_heads / 2;
      if (half == 0 || half * 2 * *op.num_heads != weight.shape[0])
        return Unsupported(fmt::format("{} rows are not {} heads of two halves", weight.shape[0], *op.num_heads));
      return op.inverse ? TransposeStretches(weight, 0, 2, half) : TransposeStretches(weight, 0, half, 2);
    });
  }

  Status Run(const Conv3dToLinearOp&) {
    return ForEach([](const LogicalWeight& weight, size_t) -> Result<LogicalWeight> {
      if (weight.shape.size() == 2) return weight;
      if (weight.shape.size() != 5)
        return Unsupported(fmt::format("a weight of shape [{}] is no 3-D convolution", fmt::join(weight.shape, ", ")));
      return FlattenWeight(weight);
    });
  }

  Status Run(const LinearToConv3dOp& op) {
    std::vector<uint64_t> sizes = {static_cast<uint64_t>(op.in_channels)};
    for (const int size : op.kernel_size) sizes.push_back(static_cast<uint64_t>(size));
    return ForEach([&](const LogicalWeight& weight, size_t) { return UnflattenWeight(weight, sizes); });
  }

  // Each list is cut into as many runs of experts as there are targets, text before vision; a target gets its run of
  // every list, stacked and side by side.
  Status Run(const ErnieFuseAndSplitOp& op) {
    const size_t targets = context_.targets->size();
    Strands fused(targets);
    for (size_t t = 0; t < targets; ++t) {
      std::vector<LogicalWeight> sides;
      for (std::vector<Entry>& strand : strands_) {
        SortByIndex(&strand);
        const uint64_t step = CeilDiv(strand.size(), targets);
        const uint64_t begin = std::min<uint64_t>(t * step, strand.size());
        auto stacked = StackRange(strand, begin, std::min<uint64_t>(begin + step, strand.size()), op.stack_dim);
        if (!stacked) return stacked.errors();
        sides.push_back(std::move(*stacked));
      }
      auto joined = ConcatenateWeights(sides, static_cast<size_t>(op.concat_dim), context_.shared);
      if (!joined) return joined.errors();
      fused[t].push_back(Whole(std::move(*joined)));
    }
    SetStrands(std::move(fused), *context_.targets);
    return {};
  }

  Status Run(const ErnieSplitAndDecoupleOp& op) {
    const size_t targets = context_.targets->size();
    Strands lists(targets);
    for (const std::vector<Entry>& strand : strands_) {
      std::vector<size_t> begin;
      for (const auto& list : lists) begin.push_back(list.size());
      for (const Entry& entry : strand) {
        for (size_t t = 0; t < targets; ++t) {
          if (auto status = Decouple(op, entry, t, &lists[t]); !status) return status;
        }
      }
      // Experts count on from one target of the other side to the next: a hole would give those after it wrong numbers.
      const bool last = &strand == &strands_.back();
      for (size_t t = 0; t < targets; ++t) {
        const auto hole = [&](const Entry& entry) { return *entry.index >= lists[t].size() - begin[t]; };
        if (!last && std::any_of(lists[t].begin() + static_cast<std::ptrdiff_t>(begin[t]), lists[t].end(), hole))
          return Unsupported("an expert is missing, so those that count on from it can't be numbered");
        for (size_t i = begin[t]; i < lists[t].size(); ++i) *lists[t][i].index += begin[t];
      }
    }
    SetStrands(std::move(lists), *context_.targets);
    return {};
  }

  // Unlike Chunk, into parts as large as the parameters of the other side.
  Status Run(const SplitOp& op) {
    if (strands_.size() != 1 || strands_[0].size() != 1) return Unsupported("several tensors at once");
    const size_t targets = context_.targets->size();
    const LogicalWeight& weight = strands_[0][0].weight;
    const auto dim = static_cast<size_t>(op.dim);
    uint64_t total = 0;
    for (size_t k = 0; k < targets; ++k) {
      const auto* shape = KnownShape(k);
      if (shape == nullptr)
        return Unsupported("the sizes of the parts are those of the model's own parameters, which no file states");
      total += dim < shape->size() ? (*shape)[dim] : 0;
    }
    // Without this the cut would fall back to equal parts.
    if (dim >= weight.shape.size() || total != weight.shape[dim])
      return Unsupported(fmt::format("parts of {} in all do not make up dimension {} of a weight of shape [{}]", total,
                                     dim, fmt::join(weight.shape, ", ")));
    Strands parts(targets);
    for (size_t k = 0; k < targets; ++k) {
      auto part = CutForTarget(weight, dim, k);
      if (!part) return part.errors();
      parts[k].push_back(Whole(std::move(*part)));
    }
    SetStrands(std::move(parts), *context_.targets);
    return {};
  }

  Status Run(const Inkling2UnpadVocabOp& op) {
    return ForEach([&](const LogicalWeight& weight, size_t) -> Result<LogicalWeight> {
      const auto& rows = op.inverse ? op.vocab_size : op.unpadded_vocab_size;
      if (!rows)
        return Unsupported(
            fmt::format("config.json does not say {}", op.inverse ? "vocab_size" : "unpadded_vocab_size"));
      if (op.inverse) return PadRows(weight, *rows);
      if (weight.shape.empty() || weight.shape[0] < *rows)
        return Unsupported(fmt::format("there are fewer than {} rows", *rows));
      return SliceWeight(weight, 0, 0, *rows);
    });
  }

  // One tensor is taken for the weight itself; its scales would be multiplied in, which no copy of bytes does.
  Status Run(const Inkling2LoopDequantizeExpertsOp&) {
    if (strands_.size() != 1 &&
        std::any_of(strands_.begin() + 1, strands_.end(), [](const auto& s) { return !s.empty(); }))
      return Unsupported("loading dequantizes these experts; quantized weights are only moved here");
    SetStrands({std::move(strands_[0])}, {context_.targets->front()});
    return {};
  }

  Status Run(const Inkling2LoopMergeMessageQueriesOp& op) { return op.inverse ? SplitQueries() : MergeQueries(); }

  Strands Take() { return std::move(strands_); }

 private:
  static Entry Whole(LogicalWeight weight) { return {std::move(weight), std::nullopt, std::nullopt, std::nullopt}; }

  static void SortByIndex(std::vector<Entry>* strand) {
    std::stable_sort(strand->begin(), strand->end(), [](const Entry& a, const Entry& b) { return a.index < b.index; });
  }

  static bool IsSwapped(std::vector<uint64_t> shape, size_t a, size_t b, const std::vector<uint64_t>* other) {
    if (other == nullptr || std::max(a, b) >= shape.size() || *other == shape) return false;
    std::swap(shape[a], shape[b]);
    return *other == shape;
  }

  // When loading, the parameter's shape follows from the config: experts map from hidden_size, but for down_proj, which
  // maps to it.
  bool FitsParameter(const TransposeOp& op, const std::vector<uint64_t>& shape, size_t strand) const {
    if (!op.hidden_size || shape.size() != 3) return true;
    const bool down = patterns_[strand].find("down_proj") != std::string::npos;
    return shape[down ? 1 : 2] == *op.hidden_size || shape[down ? 2 : 1] != *op.hidden_size;
  }

  void SetStrands(Strands strands, std::vector<std::string> patterns) {
    strands_ = std::move(strands);
    patterns_ = std::move(patterns);
  }

  const std::vector<uint64_t>* KnownShape(size_t target) const {
    return target < context_.target_shapes.size() ? context_.target_shapes[target] : nullptr;
  }

  // [L, 4, H], the rows query, key, value and mlp, to [2L, H] of query and mlp and [2L, H] of key and value.
  Status SplitQueries() {
    if (strands_.size() != 1 || strands_[0].size() != 1 || context_.targets->size() != 2)
      return Unsupported("takes one tensor apart into two");
    const LogicalWeight& weight = strands_[0][0].weight;
    if (weight.shape.size() != 3 || weight.shape[1] != 4)
      return Unsupported(fmt::format("a weight of shape [{}] has no four rows a layer", fmt::join(weight.shape, ", ")));
    constexpr std::array<std::array<uint64_t, 2>, 2> kRows = {{{0, 3}, {1, 2}}};
    Strands parts(2);
    for (size_t target = 0; target < kRows.size(); ++target) {
      std::vector<LogicalWeight> rows;
      for (const uint64_t row : kRows[target]) {
        auto slice = SliceWeight(weight, 1, row, 1);
        if (!slice) return slice.errors();
        rows.push_back(std::move(*slice));
      }
      auto pair = ConcatenateWeights(rows, 1, context_.shared);
      if (!pair) return pair.errors();
      auto merged = MergeLeading(*pair);
      if (!merged) return merged.errors();
      parts[target].push_back(Whole(std::move(*merged)));
    }
    SetStrands(std::move(parts), *context_.targets);
    return {};
  }

  Status MergeQueries() {
    if (strands_.size() != 2 || strands_[0].size() != 1 || strands_[1].size() != 1)
      return Unsupported("puts two tensors together");
    std::vector<LogicalWeight> pairs;
    for (const std::vector<Entry>& strand : strands_) {
      auto pair = SplitLeading(strand[0].weight, 2);
      if (!pair) return pair.errors();
      pairs.push_back(std::move(*pair));
    }
    auto first = SliceWeight(pairs[0], 1, 0, 1);
    auto last = SliceWeight(pairs[0], 1, 1, 1);
    if (!first) return first.errors();
    if (!last) return last.errors();
    auto joined = ConcatenateWeights({std::move(*first), std::move(pairs[1]), std::move(*last)}, 1, context_.shared);
    if (!joined) return joined.errors();
    SetStrands({{Whole(std::move(*joined))}}, {context_.targets->front()});
    return {};
  }

  template <typename F>
  Status ForEach(F function) {
    for (size_t s = 0; s < strands_.size(); ++s) {
      for (Entry& entry : strands_[s]) {
        if (entry.piece) return Unsupported("experts that are stored one by one, which the hub keeps in one tensor");
        auto changed = function(entry.weight, s);
        if (!changed) return changed.errors();
        entry.weight = std::move(*changed);
      }
    }
    return {};
  }

  // Part `k` of the cut into targets: at the reference's own sizes where they are known, else in equal parts.
  Result<LogicalWeight> CutForTarget(const LogicalWeight& weight, size_t dim, size_t k) const {
    const size_t targets = context_.targets->size();
    if (dim >= weight.shape.size()) return Chunk(weight, dim, targets, k);
    uint64_t begin = 0;
    std::optional<uint64_t> total = 0;
    for (size_t t = 0; t < targets; ++t) {
      const auto* shape = KnownShape(t);
      if (shape == nullptr || shape->size() != weight.shape.size()) return Chunk(weight, dim, targets, k);
      if (t == k) begin = *total;
      total = CheckedAdd(*total, (*shape)[dim]);
      if (!total) return Chunk(weight, dim, targets, k);
    }
    if (total != weight.shape[dim] || weight.format == FormatId::kUnrecognized) return Chunk(weight, dim, targets, k);
    return SliceWeight(weight, dim, begin, (*KnownShape(k))[dim]);
  }

  Status ChunkIntoList(const ChunkOp& op) {
    if (!op.num_shards || *op.num_shards == 0)
      return Unsupported(fmt::format("config.json does not say {}", *op.num_shards_attribute),
                         "it is the number of parts that the hub has");
    if (*op.num_shards > kMaxParts)
      return Unsupported(fmt::format("config.json says {} is {}", *op.num_shards_attribute, *op.num_shards));
    std::vector<Entry> parts;
    for (const Entry& entry : strands_[0]) {
      for (uint64_t i = 0; i < *op.num_shards; ++i) {
        auto part = Chunk(entry.weight, static_cast<size_t>(op.dim), *op.num_shards, i);
        if (!part) return part.errors();
        parts.push_back({std::move(*part), std::nullopt, i, std::nullopt});
      }
    }
    SetStrands({std::move(parts)}, *context_.targets);
    return {};
  }

  // The cut that Chunk would make was made by whoever expanded the experts.
  Status TakePiece(const ChunkOp& op, Entry entry, Strands* parts) const {
    const ExpertPiece piece = *entry.piece;
    if (op.dim != 1 || piece.parts != parts->size()) {
      return Unsupported(fmt::format("the experts are stored in {} parts, the hub has {} along dimension {}",
                                     piece.parts, parts->size(), op.dim));
    }
    entry.piece = ExpertPiece{piece.index, 0, 1};
    (*parts)[piece.part].push_back(std::move(entry));
    return {};
  }

  static Status TakeExpert(const SplitModulelistOp& op, Entry entry, std::vector<Entry>* experts) {
    if (op.dim != 0) return Unsupported(fmt::format("dimension {} of experts that are stored expanded", op.dim));
    if (entry.piece->parts > 1) return Unsupported("an expert is stored in parts that the hub keeps fused");
    experts->push_back({std::move(entry.weight), std::nullopt, entry.piece->index, entry.unit});
    return {};
  }

  static Status UnstackAll(const LogicalWeight& weight, size_t dim, std::vector<Entry>* experts) {
    if (dim >= weight.shape.size())
      return Unsupported(fmt::format("dimension {} of a weight with {}", dim, weight.shape.size()));
    if (weight.shape[dim] == 0) return Unsupported("a stack of 0 experts would leave nothing");
    if (weight.shape[dim] > kMaxParts)
      return Unsupported(fmt::format("{} experts are more than any model has", weight.shape[dim]));
    for (uint64_t i = 0; i < weight.shape[dim]; ++i) {
      auto expert = Unstack(weight, dim, i);
      if (!expert) return expert.errors();
      experts->push_back({std::move(*expert), std::nullopt, i, std::nullopt});
    }
    return {};
  }

  static Result<LogicalWeight> StackRange(const std::vector<Entry>& strand, size_t begin, size_t end, int dim) {
    if (begin >= end) return Unsupported("there are fewer experts than tensors to stack them in");
    std::vector<LogicalWeight> weights;
    for (size_t i = begin; i < end; ++i) weights.push_back(strand[i].weight);
    return StackWeights(weights, static_cast<size_t>(dim));
  }

  Status Decouple(const ErnieSplitAndDecoupleOp& op, const Entry& entry, size_t target,
                  std::vector<Entry>* list) const {
    const size_t targets = context_.targets->size();
    if (entry.piece) {
      if (entry.piece->parts != targets)
        return Unsupported(
            fmt::format("the experts are stored in {} parts, the hub has {}", entry.piece->parts, targets));
      if (entry.piece->part == target) list->push_back({entry.weight, std::nullopt, entry.piece->index, entry.unit});
      return {};
    }
    auto side = Chunk(entry.weight, static_cast<size_t>(op.concat_dim), targets, target);
    if (!side) return side.errors();
    return UnstackAll(*side, static_cast<size_t>(op.stack_dim), list);
  }

  Strands strands_;
  std::vector<std::string> patterns_;  // of the strands
  const OperationContext& context_;
};

}  // namespace

Result<Strands> RunOperations(Strands strands, const std::vector<Operation>& operations,
                              const OperationContext& context) {
  OperationRunner runner(std::move(strands), context);
  for (const Operation& operation : operations) {
    auto status = std::visit([&](const auto& op) { return runner.Run(op); }, operation);
    if (status) continue;
    for (Error& error : status.errors()) error.message = fmt::format("{}: {}", OperationName(operation), error.message);
    return status.errors();
  }
  return runner.Take();
}

}  // namespace quantport
