#include "exec/output_bytes.h"

#include <algorithm>
#include <cstring>

#include "exec/gather.h"

namespace quantport {

OutputBytes::OutputBytes(const Plan& plan, const PlannedFile& file, const Sources& sources, MergedScales* scales)
    : plan_(plan),
      file_(file),
      sources_(sources),
      scales_(scales),
      ranges_(FileRanges(plan, file)),
      computed_(ComputedStretches(file)) {
  for (const PlannedTensor& tensor : file.tensors) {
    if (tensor.gathered) gathered_.push_back(&tensor);
  }
}

Status OutputBytes::Fill(uint64_t begin, std::span<std::byte> out) const {
  return Fill(begin, out, [&](uint32_t source, uint64_t from, uint64_t at, uint64_t bytes) {
    return sources_[source].ReadAt(out.subspan(at, bytes), from);
  });
}

Status OutputBytes::Fill(uint64_t begin, std::span<std::byte> out, const ReadSource& read) const {
  const uint64_t end = begin + out.size();
  if (begin < file_.header.size()) {
    const size_t count = std::min<uint64_t>(file_.header.size() - begin, out.size());
    std::memcpy(out.data(), file_.header.data() + begin, count);
  }
  auto hole =
      std::partition_point(computed_.begin(), computed_.end(), [&](const Stretch& s) { return s.end <= begin; });
  for (; hole != computed_.end() && hole->begin < end; ++hole) {
    const uint64_t from = std::max(hole->begin, begin);
    std::memset(out.data() + (from - begin), 0, std::min(hole->end, end) - from);
  }
  auto range =
      std::partition_point(ranges_.begin(), ranges_.end(), [&](const CopyRange& r) { return r.to + r.bytes <= begin; });
  for (; range != ranges_.end() && range->to < end; ++range) {
    const uint64_t from = std::max(range->to, begin);
    const uint64_t bytes = std::min(range->to + range->bytes, end) - from;
    const uint64_t at = from - begin;
    if (range->source == kZeros) {
      std::memset(out.data() + at, 0, bytes);
      continue;
    }
    if (auto status = read(range->source, range->from + (from - range->to), at, bytes); !status) return status;
    if (range->step != 0) scales_->Apply(range->step, out.subspan(at, bytes));
  }
  return FillGathered(begin, out);
}

Status OutputBytes::FillGathered(uint64_t begin, std::span<std::byte> out) const {
  const uint64_t end = begin + out.size();
  auto next = std::partition_point(gathered_.begin(), gathered_.end(), [&](const PlannedTensor* tensor) {
    return file_.header.size() + tensor->info.end <= begin;
  });
  for (; next != gathered_.end() && file_.header.size() + (*next)->info.begin < end; ++next) {
    const PlannedTensor* tensor = *next;
    const uint64_t first = file_.header.size() + tensor->info.begin;
    const uint64_t from = std::max(first, begin);
    const uint64_t to = std::min(file_.header.size() + tensor->info.end, end);
    if (from >= to) continue;
    auto status =
        Gather(*tensor->gathered, plan_.tensors, sources_, scales_, from - first, out.subspan(from - begin, to - from));
    if (!status) return status;
  }
  return {};
}

}  // namespace quantport
