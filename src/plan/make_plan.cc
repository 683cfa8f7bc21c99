#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "base/checked.h"
#include "plan/placement.h"
#include "plan/plan.h"

namespace quantport {
namespace {

// The tensors of one output file, as indices into the conversion.
using Members = std::vector<size_t>;

struct FileDraft {
  std::string name;
  Metadata metadata;
  Members members;
  std::optional<uint32_t> shard = {};  // whose place it takes
};

class Planner {
 public:
  Planner(const Conversion& conversion, const TensorTable& table, const PlanOptions& options)
      : conversion_(conversion), table_(table), options_(options) {}

  Result<Plan> Make(const std::filesystem::path& directory) {
    Plan plan;
    for (const Shard& shard : table_.shards) {
      plan.sources.push_back({(directory / shard.name).string(), shard.stamp});
    }
    for (const StoredTensor& tensor : table_.tensors) {
      plan.tensors.push_back({tensor.info.name, tensor.shard,
                              table_.shards[tensor.shard].data_start + tensor.info.begin,
                              tensor.info.end - tensor.info.begin, tensor.info.dtype});
    }
    std::vector<FileDraft> drafts = options_.max_shard_bytes ? Reshard(*options_.max_shard_bytes) : KeepShards();
    Errors errors;
    for (const FileDraft& draft : drafts) {
      auto file = LayOut(draft);
      if (file) {
        plan.files.push_back(std::move(*file));
      } else {
        errors.insert(errors.end(), file.errors().begin(), file.errors().end());
      }
    }
    if (!errors.empty()) return errors;
    const bool sharded = options_.max_shard_bytes ? plan.files.size() > 1 : options_.sharded;
    if (sharded) plan.index = MakeIndex(plan);
    if (auto status = PlanSharedScales(&plan); !status) return status.errors();
    return plan;
  }

 private:
  // Where in the source a tensor's first byte stands: reading a shard front to back is what disks do best.
  uint64_t SourceOffset(size_t tensor) const {
    if (conversion_.tensors[tensor].computed_at) return *conversion_.tensors[tensor].computed_at;
    const auto before = [](const Block& a, const Block& b) {
      return std::lexicographical_compare(a.dims.begin(), a.dims.end(), b.dims.begin(), b.dims.end(),
                                          [](const BlockDim& x, const BlockDim& y) { return x.origin < y.origin; });
    };
    const Block* first = nullptr;
    for (const Block& block : conversion_.tensors[tensor].array.blocks) {
      if (first == nullptr || before(block, *first)) first = &block;
    }
    return first == nullptr ? 0 : table_.tensors[first->tensor].info.begin + first->offset / 8;
  }

  std::vector<Members> MembersByShard() const {
    std::vector<Members> members(table_.shards.size());
    for (size_t i = 0; i < conversion_.tensors.size(); ++i) members[conversion_.tensors[i].shard].push_back(i);
    std::vector<uint64_t> offsets(conversion_.tensors.size());
    for (size_t i = 0; i < offsets.size(); ++i) offsets[i] = SourceOffset(i);
    for (Members& shard : members) {
      std::stable_sort(shard.begin(), shard.end(), [&](size_t a, size_t b) { return offsets[a] < offsets[b]; });
    }
    return members;
  }

  // What each shard is called here. Those of another checkpoint lose their folders, so that two may get one name.
  std::vector<std::string> OutputNames() const {
    std::set<std::string> taken;
    for (const Shard& shard : table_.shards) taken.insert(shard.name);
    std::vector<std::string> names;
    for (const Shard& shard : table_.shards) {
      const std::filesystem::path path(shard.name);
      std::string name = shard.name;
      if (path.is_absolute()) {
        name = "carried-" + path.filename().string();
        while (!taken.insert(name).second) name.insert(0, "carried-");
      }
      names.push_back(std::move(name));
    }
    return names;
  }

  std::vector<FileDraft> KeepShards() const {
    std::vector<FileDraft> drafts;
    const std::vector<Members> members = MembersByShard();
    const std::vector<std::string> names = OutputNames();
    for (size_t s = 0; s < members.size(); ++s) {
      // A shard whose tensors were all fused into another one's goes away: an index can't name a shard without tensors.
      const bool emptied = members[s].empty() && std::any_of(table_.tensors.begin(), table_.tensors.end(),
                                                             [&](const StoredTensor& t) { return t.shard == s; });
      const bool foreign = std::filesystem::path(table_.shards[s].name).is_absolute();
      if (foreign && members[s].empty()) continue;
      if (emptied && members.size() > 1) continue;
      drafts.push_back({names[s], table_.shards[s].metadata, members[s], {}});
      if (!foreign) drafts.back().shard = static_cast<uint32_t>(s);
    }
    return drafts;
  }

  std::vector<FileDraft> Reshard(uint64_t max_bytes) const {
    std::vector<FileDraft> drafts;
    uint64_t bytes = 0;
    for (const Members& shard : MembersByShard()) {
      for (const size_t tensor : shard) {
        const uint64_t size = TensorSize(tensor);
        if (drafts.empty() || (bytes + size > max_bytes && bytes > 0)) {
          drafts.push_back({"", table_.shards[0].metadata, {}, {}});
          bytes = 0;
        }
        drafts.back().members.push_back(tensor);
        bytes += size;
      }
    }
    if (drafts.empty()) drafts.push_back({"", table_.shards[0].metadata, {}, {}});
    for (size_t i = 0; i < drafts.size(); ++i) {
      drafts[i].name = drafts.size() == 1 ? "model.safetensors"
                                          : fmt::format("model-{:05d}-of-{:05d}.safetensors", i + 1, drafts.size());
    }
    return drafts;
  }

  uint64_t TensorSize(size_t tensor) const {
    const Array& array = conversion_.tensors[tensor].array;
    return TensorBytes(array.dtype, array.shape).value_or(0);
  }

  // The source's order mostly keeps every tensor at a multiple of its element size; where it does not, wide elements go
  // first, which always does.
  static void Align(std::vector<PlannedTensor>* tensors) {
    uint64_t offset = 0;
    bool aligned = true;
    for (const PlannedTensor& tensor : *tensors) {
      aligned &= offset % Alignment(tensor.info.dtype) == 0;
      offset += tensor.info.end - tensor.info.begin;
    }
    if (aligned) return;
    std::stable_sort(tensors->begin(), tensors->end(), [](const PlannedTensor& a, const PlannedTensor& b) {
      return Alignment(a.info.dtype) > Alignment(b.info.dtype);
    });
  }

  // A copy costs a system call and a place in the plan; elements apart are cheaper read in stretches and picked.
  static bool IsGathered(const Array& array, uint64_t bytes) {
    constexpr uint64_t kManyRuns = 4096;
    constexpr uint64_t kShortRun = 512;
    if (!array.literal.empty()) return true;
    if (DTypeBits(array.dtype) % 8 != 0) return false;
    const uint64_t runs = RunCount(array);
    return runs > kManyRuns && bytes / runs < kShortRun;
  }

  Result<PlannedFile> LayOut(const FileDraft& draft) const {
    auto tensors = PlanTensors(draft.members);
    if (!tensors) return tensors.errors();
    std::string obstacle;
    if (options_.block_bytes != 0 && draft.shard) {
      Placement placement = PlaceOver(*tensors, table_, *draft.shard);
      obstacle = std::move(placement.obstacle);
      if (obstacle.empty()) {
        auto file = Assemble(draft, Ordered(std::move(*tensors), placement.order));
        if (!file) return file;
        obstacle = Stay(std::move(placement), *draft.shard, &*file);
        if (obstacle.empty()) return file;
        *tensors = std::move(file->tensors);
      }
    }
    Align(&*tensors);
    auto file = Assemble(draft, std::move(*tensors));
    if (file) file->obstacle = std::move(obstacle);
    return file;
  }

  // Their sizes and where their bytes come from; no places yet.
  Result<std::vector<PlannedTensor>> PlanTensors(const Members& members) const {
    std::vector<PlannedTensor> tensors;
    tensors.reserve(members.size());
    Errors errors;
    for (const size_t i : members) {
      const ConvertedTensor& tensor = conversion_.tensors[i];
      const auto bytes = TensorBytes(tensor.array.dtype, tensor.array.shape);
      if (!bytes) {
        errors.push_back(SizeError(tensor.name));
        continue;
      }
      PlannedTensor planned{{tensor.name, tensor.array.dtype, tensor.array.shape, 0, *bytes}, tensor.format, {}, {}};
      planned.converted = static_cast<uint32_t>(i);
      if (tensor.computed_at) {
        planned.computed = true;
      } else if (IsGathered(tensor.array, *bytes)) {
        planned.gathered = tensor.array;
      } else if (auto runs = Runs(tensor.array)) {
        planned.runs = std::move(*runs);
      } else {
        runs.errors()[0].tensor = tensor.name;
        errors.push_back(runs.errors()[0]);
        continue;
      }
      tensors.push_back(std::move(planned));
    }
    if (!errors.empty()) return errors;
    return tensors;
  }

  static Error SizeError(const std::string& tensor) {
    return {ErrorKind::kQuantConversionUnsupported, "its size is beyond any file's", {}, tensor, {}};
  }

  // The tensors one after the other, under their header.
  static Result<PlannedFile> Assemble(const FileDraft& draft, std::vector<PlannedTensor> tensors) {
    PlannedFile file;
    file.name = draft.name;
    uint64_t offset = 0;
    std::vector<const TensorInfo*> infos;
    infos.reserve(tensors.size());
    for (PlannedTensor& tensor : tensors) {
      const uint64_t bytes = tensor.info.end - tensor.info.begin;
      const auto end = CheckedAdd(offset, bytes);
      if (!end) return SizeError(tensor.info.name);
      tensor.info.begin = offset;
      tensor.info.end = *end;
      offset = *end;
      infos.push_back(&tensor.info);
    }
    auto header = SerializeHeader(infos, draft.metadata, file.name);
    if (!header) return header.errors();
    file.tensors = std::move(tensors);
    file.header = std::move(*header);
    file.bytes = file.header.size() + offset;
    return file;
  }

  static std::vector<PlannedTensor> Ordered(std::vector<PlannedTensor> tensors, const std::vector<size_t>& order) {
    std::vector<PlannedTensor> ordered;
    ordered.reserve(tensors.size());
    for (const size_t i : order) ordered.push_back(std::move(tensors[i]));
    return ordered;
  }

  // Pads the header of a file whose tensors are in the placement's order, so that its data begins where the shard's
  // does modulo the block size. Returns why that can't be, or nothing.
  std::string Stay(Placement placement, uint32_t shard, PlannedFile* file) const {
    const uint64_t data_start = table_.shards[shard].data_start;
    const uint64_t least = std::max<uint64_t>(file->header.size(), options_.keep_header_room ? data_start : 0);
    const uint64_t block = options_.block_bytes;
    const uint64_t start = least + (data_start % block + block - least % block) % block;
    if (start - kLengthBytes > kMaxHeaderBytes)
      return fmt::format("the header would pass the format's cap of {} bytes with its padding", kMaxHeaderBytes);
    file->bytes += start - file->header.size();
    PadHeader(start, &file->header);
    file->stays =
        StayingData{shard, data_start, placement.kept, std::move(placement.rewritten), HasSameHeader(*file, shard)};
    return {};
  }

  // Metadata are the shard's own in any case.
  bool HasSameHeader(const PlannedFile& file, uint32_t shard) const {
    const auto before = [](const StoredTensor& tensor, uint32_t number) { return tensor.shard < number; };
    const auto first = std::lower_bound(table_.tensors.begin(), table_.tensors.end(), shard, before);
    const auto last = std::lower_bound(first, table_.tensors.end(), shard + 1, before);
    return std::equal(first, last, file.tensors.begin(), file.tensors.end(),
                      [](const StoredTensor& stored, const PlannedTensor& planned) {
                        const TensorInfo& a = stored.info;
                        const TensorInfo& b = planned.info;
                        return a.name == b.name && a.dtype == b.dtype && a.shape == b.shape && a.begin == b.begin &&
                               a.end == b.end;
                      });
  }

  Index MakeIndex(const Plan& plan) const {
    Index index;
    if (options_.index != nullptr) index.other_metadata = options_.index->other_metadata;
    uint64_t total = 0;
    for (const PlannedFile& file : plan.files) {
      for (const PlannedTensor& tensor : file.tensors) {
        index.weight_map.emplace_back(tensor.info.name, file.name);
        total += tensor.info.end - tensor.info.begin;
      }
    }
    index.total_size = total;
    return index;
  }

  static std::vector<CopyRange> SourceRanges(const Plan& plan, const std::vector<Run>& runs) {
    std::vector<CopyRange> ranges;
    for (const Run& run : runs) {
      const SourceTensor& tensor = plan.tensors[run.tensor];
      ranges.push_back({tensor.source, tensor.offset + run.source, run.target, run.bytes, 0});
    }
    return ranges;
  }

  Status PlanSharedScales(Plan* plan) const {
    const SharedScales& shared = conversion_.shared;
    for (const EqualBytes& check : shared.checks) {
      auto planned = MakeCheck(*plan, check);
      if (!planned) return planned.errors();
      plan->checks.push_back(std::move(*planned));
    }
    for (const ScaleMerge& merge : shared.merges) {
      PlannedMerge planned{merge.leaf, merge.reciprocal, merge.scalars[0].dtype, {}, {}};
      for (const Array& scalar : merge.scalars) {
        auto runs = Runs(scalar);
        if (!runs) return runs.errors();
        planned.scalars.push_back(SourceRanges(*plan, *runs).at(0));
        planned.names.push_back(plan->tensors[runs->at(0).tensor].name);
      }
      plan->merges.push_back(std::move(planned));
    }
    plan->steps = shared.steps;
    return {};
  }

  static Result<PlannedCheck> MakeCheck(const Plan& plan, const EqualBytes& check) {
    auto a = Runs(check.a);
    if (!a) return a.errors();
    auto b = Runs(check.b);
    if (!b) return b.errors();
    const auto name = [&](const std::vector<Run>& runs) {
      return runs.empty() ? std::string() : plan.tensors[runs[0].tensor].name;
    };
    return PlannedCheck{check.leaf, name(*a), name(*b), SourceRanges(plan, *a), SourceRanges(plan, *b)};
  }

  const Conversion& conversion_;
  const TensorTable& table_;
  const PlanOptions& options_;
};

}  // namespace

Result<Plan> MakePlan(const Conversion& conversion, const TensorTable& table, const std::filesystem::path& directory,
                      const PlanOptions& options) {
  return Planner(conversion, table, options).Make(directory);
}

std::vector<Stretch> ComputedStretches(const PlannedFile& file) {
  std::vector<Stretch> stretches;
  for (const PlannedTensor& tensor : file.tensors) {
    if (!tensor.computed || tensor.info.begin == tensor.info.end) continue;
    const uint64_t begin = file.header.size() + tensor.info.begin;
    const uint64_t end = file.header.size() + tensor.info.end;
    if (!stretches.empty() && stretches.back().end == begin) {
      stretches.back().end = end;
    } else {
      stretches.push_back({begin, end});
    }
  }
  return stretches;
}

std::vector<CopyRange> FileRanges(const Plan& plan, const PlannedFile& file) {
  std::vector<CopyRange> ranges;
  for (const PlannedTensor& tensor : file.tensors) {
    for (const Run& run : tensor.runs) {
      const SourceTensor* source = run.tensor == kZeros ? nullptr : &plan.tensors[run.tensor];
      const CopyRange range = {source == nullptr ? kZeros : source->source,
                               (source == nullptr ? 0 : source->offset) + run.source,
                               file.header.size() + tensor.info.begin + run.target, run.bytes, run.step};
      CopyRange* last = ranges.empty() ? nullptr : &ranges.back();
      if (last != nullptr && last->source == range.source && last->step == range.step &&
          last->from + last->bytes == range.from && last->to + last->bytes == range.to) {
        last->bytes += range.bytes;
      } else {
        ranges.push_back(range);
      }
    }
  }
  return ranges;
}

}  // namespace quantport
