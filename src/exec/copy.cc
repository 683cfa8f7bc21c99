#include "exec/copy.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <numeric>
#include <optional>
#include <vector>

#include "base/checked.h"
#include "exec/merged_scales.h"
#include "exec/output_bytes.h"
#include "exec/sources.h"
#include "exec/transfer.h"
#include "io/buffer.h"
#include "io/file.h"

namespace quantport {
namespace {

// Large enough that seeks between shards cost nothing against transfers, small enough for the memory bound: 4, 8 and 16
// MiB were measured to be equal on four threads.
constexpr uint64_t kWindowBytes = 4 << 20;

// A stretch of one output file that one thread fills and writes.
struct Window {
  size_t file = 0;  // among those that are written
  uint64_t begin = 0;
  uint64_t end = 0;
};

// File systems let one thread at a time write to a file, but for direct writes of some: so `threads` files are written
// side by side, each from its beginning on. In memory, 16 threads that all wrote to the same file were no faster
// than 2.
std::vector<Window> SpreadOverFiles(std::vector<Window> windows, size_t files, size_t threads) {
  std::vector<std::deque<Window>> waiting(files);
  for (const Window& window : windows) waiting[window.file].push_back(window);
  windows.clear();
  std::deque<std::deque<Window>> lanes;
  for (size_t next = 0; next < files || !lanes.empty();) {
    while (lanes.size() < threads && next < files) lanes.push_back(std::move(waiting[next++]));
    for (auto& lane : lanes) {
      if (lane.empty()) continue;
      windows.push_back(lane.front());
      lane.pop_front();
    }
    std::erase_if(lanes, [](const auto& lane) { return lane.empty(); });
  }
  return windows;
}

class Copier {
 public:
  Copier(const Plan& plan, const Storage& storage, const ExecOptions& options)
      : plan_(plan), storage_(storage), options_(options), chosen_(ChosenFiles(plan, options)), cloner_(options.clone) {
    for (const size_t file : chosen_) total_ += plan.files[file].bytes;
  }

  Result<ExecReport> Run(OutputFolder* folder, const std::filesystem::path& below) {
    auto sources = Sources::Open(options_.sources ? *options_.sources : plan_.sources, storage_);
    if (!sources) return sources.errors();
    sources_ = std::move(*sources);
    auto scales = MergedScales::Read(plan_, sources_);
    if (!scales) return scales.errors();
    scales_.emplace(std::move(*scales));
    if (auto status = CreateTargets(folder, below); !status) return status.errors();
    windows_ = SpreadOverFiles(std::move(windows_), targets_.size(), ThreadCount());
    for (size_t i = 0; i < sources_.size(); ++i) readers_.emplace_back(&sources_[i]);
    if (auto status = CopyWindows(); !status) return status.errors();
    if (auto status = sources_.CheckUnchanged(); !status) return status.errors();
    ExecReport report{scales_->Errors(), cloner_.cloned_bytes(), total_ - cloner_.cloned_bytes()};
    // Of the files that were not asked for.
    std::erase_if(report.rescaled, [](const RescaleError& error) { return error.elements == 0; });
    return report;
  }

 private:
  static std::vector<size_t> ChosenFiles(const Plan& plan, const ExecOptions& options) {
    if (options.files) return *options.files;
    std::vector<size_t> all(plan.files.size());
    std::iota(all.begin(), all.end(), size_t{0});
    return all;
  }

  // They wait for the disk: on two cores four are as fast as two past the page cache, and twice as fast through it.
  size_t ThreadCount() const { return options_.work.ThreadCount(4, 8); }

  Status CreateTargets(OutputFolder* folder, const std::filesystem::path& below) {
    for (const size_t f : chosen_) {
      if (auto status = options_.work.Continue(); !status) return status;
      auto file = folder->Create(below / plan_.files[f].name);
      if (!file) return file.errors();
      targets_.push_back(*file);
      if (auto status = PrepareTarget(plan_.files[f]); !status) return status;
    }
    progress_.emplace(options_.work.progress, total_);
    if (cloner_.cloned_bytes() != 0) progress_->Add(cloner_.cloned_bytes());
    return {};
  }

  // Clones what can be, and reserves the space for the rest.
  Status PrepareTarget(const PlannedFile& planned) {
    const size_t number = targets_.size() - 1;
    OutputFile* const target = targets_.back();
    outputs_.emplace_back(plan_, planned, sources_, &*scales_);
    if (auto status = target->SetSize(planned.bytes); !status) return status;
    auto left = cloner_.Clone(outputs_.back().ranges(), sources_, target, planned.bytes);
    if (!left) return left.errors();
    for (const Stretch& stretch : *left) {
      if (auto status = target->Allocate(stretch.begin, stretch.end - stretch.begin); !status) return status;
    }
    for (const Stretch& stretch : LeaveOutComputed(planned, *left)) {
      for (uint64_t begin = stretch.begin; begin < stretch.end; begin += kWindowBytes) {
        windows_.push_back({number, begin, std::min(begin + kWindowBytes, stretch.end)});
      }
    }
    return {};
  }

  // Whole blocks of computed tensors are written by others (exec/quantize.cc); both borders stay with this.
  static std::vector<Stretch> LeaveOutComputed(const PlannedFile& planned, const std::vector<Stretch>& stretches) {
    std::vector<Stretch> out;
    for (Stretch rest : stretches) {
      for (const Stretch& hole : ComputedStretches(planned)) {
        const uint64_t begin = std::max(rest.begin, RoundUp(hole.begin, kDirectBlock));
        const uint64_t end = std::min(rest.end, hole.end / kDirectBlock * kDirectBlock);
        if (begin >= end) continue;
        if (rest.begin < begin) out.push_back({rest.begin, begin});
        rest.begin = end;
      }
      if (rest.begin < rest.end) out.push_back(rest);
    }
    return out;
  }

  Status CopyWindows() {
    const auto stop = [this] { next_window_.store(windows_.size(), std::memory_order_relaxed); };
    return RunWorkers(
        std::min(ThreadCount(), windows_.size()), [this] { return Work(); }, stop, options_.work.start_thread);
  }

  Status Work() {
    const IoBuffer buffer(RoundUp(std::min(kWindowBytes, total_), kDirectBlock) + kReadSlack);
    Writeback writeback;
    while (true) {
      const size_t next = next_window_.fetch_add(1, std::memory_order_relaxed);
      if (next >= windows_.size()) break;
      if (auto status = options_.work.Continue(); !status) return status;
      if (auto status = CopyWindow(windows_[next], buffer.bytes(), &writeback); !status) return status;
      progress_->Add(windows_[next].end - windows_[next].begin);
    }
    return writeback.Finish();
  }

  Status CopyWindow(const Window& window, std::span<std::byte> buffer, Writeback* writeback) {
    const auto out = buffer.first(window.end - window.begin);
    const auto read = [&](uint32_t source, uint64_t from, uint64_t at, uint64_t bytes) {
      return readers_[source].Read(buffer, at, bytes, from);
    };
    if (auto status = outputs_[window.file].Fill(window.begin, out, read); !status) return status;
    OutputFile* const target = targets_[window.file];
    auto cached = target->WriteLarge(out, window.begin);
    if (!cached) return cached.errors();
    return *cached ? writeback->Add(target, window.begin, out.size()) : Status();
  }

  const Plan& plan_;
  const Storage& storage_;
  const ExecOptions& options_;
  const std::vector<size_t> chosen_;  // indices into Plan::files; all below count in their order
  uint64_t total_ = 0;
  Cloner cloner_;
  std::optional<MergedScales> scales_;
  Sources sources_;
  std::vector<OutputFile*> targets_;
  std::deque<SourceFile> readers_;
  std::deque<OutputBytes> outputs_;
  std::vector<Window> windows_;
  std::atomic<size_t> next_window_ = 0;
  std::optional<Progress> progress_;
};

// Reads ranges that must be equal: scalars and scale vectors, never whole weights.
Result<std::vector<std::byte>> ReadRanges(const Sources& sources, const std::vector<CopyRange>& ranges) {
  std::vector<std::byte> bytes;
  for (const CopyRange& range : ranges) {
    const size_t begin = bytes.size();
    bytes.resize(begin + range.bytes);
    if (auto status = sources[range.source].ReadAt(std::span(bytes).subspan(begin), range.from); !status)
      return status.errors();
  }
  return bytes;
}

}  // namespace

Error UnequalScales(const std::string& leaf, const std::string& tensor_a, const std::string& tensor_b) {
  return {ErrorKind::kQuantConversionUnsupported,
          fmt::format("its {} differs from that of {}, and both weights become one", leaf, tensor_a),
          {},
          tensor_b,
          "unify the scales when quantizing, or pass --merge-scales max to re-express both under the larger one"};
}

Status RunChecks(const Plan& plan, const Storage& storage) {
  if (plan.checks.empty()) return {};
  auto sources = Sources::Open(plan.sources, storage);
  if (!sources) return sources.errors();
  Errors errors;
  for (const PlannedCheck& check : plan.checks) {
    auto a = ReadRanges(*sources, check.a);
    if (!a) return a.errors();
    auto b = ReadRanges(*sources, check.b);
    if (!b) return b.errors();
    if (*a == *b) continue;
    errors.push_back(UnequalScales(check.leaf, check.tensor_a, check.tensor_b));
  }
  if (!errors.empty()) return errors;
  return {};
}

Result<ExecReport> WriteFiles(const Plan& plan, const Storage& storage, OutputFolder* folder,
                              const std::filesystem::path& below, const ExecOptions& options) {
  return Copier(plan, storage, options).Run(folder, below);
}

}  // namespace quantport
