#include "plan/placement.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/checked.h"

namespace quantport {
namespace {

// How a tensor relates to the source's data section.
enum class Relation {
  kSame,       // one range of it, as it is
  kReordered,  // bytes of it, in another order or from several places
  kNew,        // bytes from elsewhere, or none
};

struct Candidate {
  size_t tensor = 0;
  Relation relation = Relation::kNew;
  ByteRange range = {UINT64_MAX, 0};  // of the source's data, around all of its bytes
  uint64_t bytes = 0;
  bool computed = false;
};

class Placer {
 public:
  Placer(std::span<const PlannedTensor> tensors, const TensorTable& table, uint32_t shard)
      : tensors_(tensors), table_(table), shard_(shard) {}

  Placement Place() {
    SortOut();
    KeepRegions();
    if (placement_.obstacle.empty()) CheckAlignment();
    return std::move(placement_);
  }

 private:
  uint64_t DataBytes() const { return table_.shards[shard_].file_bytes - table_.shards[shard_].data_start; }

  bool IsOwn(uint32_t tensor) const { return tensor != kZeros && table_.tensors[tensor].shard == shard_; }

  Candidate Examine(size_t i) const {
    const PlannedTensor& tensor = tensors_[i];
    Candidate candidate;
    candidate.tensor = i;
    candidate.bytes = tensor.info.end - tensor.info.begin;
    bool foreign = candidate.bytes == 0;
    const auto extend = [&](uint32_t source, uint32_t step, uint64_t begin, uint64_t end) {
      foreign |= !IsOwn(source);
      candidate.computed |= step != 0;
      if (foreign) return;
      const uint64_t first = table_.tensors[source].info.begin;
      candidate.range.begin = std::min(candidate.range.begin, first + begin);
      candidate.range.end = std::max(candidate.range.end, first + end);
    };
    for (const Run& run : tensor.runs) extend(run.tensor, run.step, run.source, run.source + run.bytes);
    if (tensor.gathered) {
      foreign |= !tensor.gathered->literal.empty();
      for (const Block& block : tensor.gathered->blocks) {
        uint64_t last = block.offset;
        for (const BlockDim& dim : block.dims) last += dim.extent == 0 ? 0 : (dim.extent - 1) * dim.stride;
        const auto bits = static_cast<uint64_t>(DTypeBits(tensor.gathered->dtype));
        extend(block.tensor, block.step, block.offset / 8, CeilDiv(last + bits, 8));
      }
    }
    const bool whole = tensor.runs.size() == 1 && !candidate.computed;
    candidate.relation = foreign ? Relation::kNew : whole ? Relation::kSame : Relation::kReordered;
    return candidate;
  }

  // Candidates for a place in the data, by where it begins; the others are appended. Of several tensors made of the
  // same bytes the first has them, and the others are copies.
  void SortOut() {
    for (size_t i = 0; i < tensors_.size(); ++i) {
      Candidate candidate = Examine(i);
      if (candidate.computed && placement_.obstacle.empty())
        placement_.obstacle = fmt::format("{} is rounded again", tensors_[i].info.name);
      if (candidate.relation == Relation::kNew) {
        appended_.push_back(i);
      } else {
        placed_.push_back(candidate);
      }
    }
    std::stable_sort(placed_.begin(), placed_.end(), [](const Candidate& a, const Candidate& b) {
      return a.range.begin != b.range.begin ? a.range.begin < b.range.begin : a.range.end > b.range.end;
    });
    uint64_t taken = 0;
    std::erase_if(placed_, [&](const Candidate& candidate) {
      if (candidate.relation != Relation::kSame) return false;
      const bool again = candidate.range.begin < taken;
      if (again) appended_.push_back(candidate.tensor);
      taken = std::max(taken, candidate.range.end);
      return again;
    });
  }

  // Tensors whose ranges meet form a region; the bytes of one either stay as they are or change places within it.
  void KeepRegions() {
    uint64_t cursor = 0;
    for (size_t first = 0; first < placed_.size() && placement_.obstacle.empty();) {
      ByteRange region = placed_[first].range;
      uint64_t bytes = 0;
      size_t next = first;
      for (; next < placed_.size() && (next == first || placed_[next].range.begin < region.end); ++next) {
        region.end = std::max(region.end, placed_[next].range.end);
        bytes += placed_[next].bytes;
        placement_.order.push_back(placed_[next].tensor);
      }
      const bool same = next == first + 1 && placed_[first].relation == Relation::kSame;
      if (region.begin != cursor) {
        RefuseHole(cursor);
      } else if (bytes != region.end - region.begin) {
        placement_.obstacle =
            fmt::format("the bytes that make up {} are not used once each", tensors_[placed_[first].tensor].info.name);
      } else if (!same) {
        placement_.rewritten.push_back(region);
      }
      cursor = region.end;
      first = next;
    }
    if (placement_.obstacle.empty() && cursor != DataBytes()) RefuseHole(cursor);
    placement_.kept = cursor;
  }

  void RefuseHole(uint64_t at) {
    const auto hole = std::find_if(table_.tensors.begin(), table_.tensors.end(), [&](const StoredTensor& tensor) {
      return tensor.shard == shard_ && tensor.info.begin <= at && at < tensor.info.end;
    });
    const std::string name = hole == table_.tensors.end() ? std::string("a tensor") : hole->info.name;
    placement_.obstacle = fmt::format("bytes of {} would be a hole in the data", name);
  }

  void CheckAlignment() {
    // Wide elements first, so that the narrow ones can't misalign them.
    std::stable_sort(appended_.begin(), appended_.end(), [&](size_t a, size_t b) {
      return Alignment(tensors_[a].info.dtype) > Alignment(tensors_[b].info.dtype);
    });
    placement_.order.insert(placement_.order.end(), appended_.begin(), appended_.end());
    uint64_t offset = table_.shards[shard_].data_start;
    for (const size_t i : placement_.order) {
      if (offset % Alignment(tensors_[i].info.dtype) != 0) {
        placement_.obstacle = fmt::format("{} would begin at no multiple of its element size", tensors_[i].info.name);
        return;
      }
      offset += tensors_[i].info.end - tensors_[i].info.begin;
    }
  }

  const std::span<const PlannedTensor> tensors_;
  const TensorTable& table_;
  const uint32_t shard_;
  std::vector<Candidate> placed_;
  std::vector<size_t> appended_;
  Placement placement_;
};

}  // namespace

uint64_t Alignment(DType dtype) { return std::max<uint64_t>(1, static_cast<uint64_t>(DTypeBits(dtype)) / 8); }

Placement PlaceOver(std::span<const PlannedTensor> tensors, const TensorTable& table, uint32_t shard) {
  return Placer(tensors, table, shard).Place();
}

}  // namespace quantport
