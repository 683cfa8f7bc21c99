#include "exec/copy.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "exec/gather.h"
#include "exec/merged_scales.h"
#include "io/file.h"

namespace quantport {
namespace {

// Large enough that seeks between shards cost nothing against transfers, small enough for the memory bound. Measured
// on ext4: 8 MiB reads and writes on two threads outran cp, copy_file_range did not (docs/benchmarks.md).
constexpr uint64_t kWindowBytes = 8 << 20;

// A stretch of one output file that one thread fills and writes.
struct Window {
  size_t file = 0;
  uint64_t begin = 0;
  uint64_t end = 0;
};

// The plan's source files, every problem of opening them.
Result<std::vector<File>> OpenSources(const Plan& plan) {
  std::vector<File> sources;
  Errors errors;
  for (const auto& path : plan.sources) {
    auto file = File::OpenForReading(path);
    if (!file) {
      errors.insert(errors.end(), file.errors().begin(), file.errors().end());
      continue;
    }
    file->AdviseSequential();
    sources.push_back(std::move(*file));
  }
  if (!errors.empty()) return errors;
  return sources;
}

class Copier {
 public:
  Copier(const Plan& plan, const ExecOptions& options) : plan_(plan), options_(options), total_(plan.TotalBytes()) {}

  Result<ExecReport> Run(const std::filesystem::path& directory) {
    auto sources = OpenSources(plan_);
    if (!sources) return sources.errors();
    sources_ = std::move(*sources);
    auto scales = MergedScales::Read(plan_, sources_);
    if (!scales) return scales.errors();
    scales_.emplace(std::move(*scales));
    if (auto status = CreateTargets(directory); !status) return status.errors();
    std::vector<std::thread> workers;
    const int count = ThreadCount();
    for (int i = 1; i < count; ++i) workers.emplace_back([this] { Work(); });
    Work();
    for (std::thread& worker : workers) worker.join();
    if (!errors_.empty()) return std::move(errors_);
    for (File& target : targets_) {
      if (Cancelled()) return CancelledError();
      if (auto status = target.Sync(); !status) return status.errors();
    }
    return ExecReport{scales_->Errors()};
  }

 private:
  int ThreadCount() const {
    if (options_.threads > 0) return options_.threads;
    return static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 2u, 8u));
  }

  bool Cancelled() const { return options_.cancel != nullptr && options_.cancel->load(std::memory_order_relaxed); }

  static Error CancelledError() { return Error{ErrorKind::kCancelled, "stopped on request", {}, {}, {}}; }

  Status CreateTargets(const std::filesystem::path& directory) {
    for (size_t f = 0; f < plan_.files.size(); ++f) {
      const PlannedFile& planned = plan_.files[f];
      auto file = File::Create(directory / planned.name);
      if (!file) return file.errors();
      if (auto status = file->Allocate(planned.bytes); !status) return status;
      targets_.push_back(std::move(*file));
      ranges_.push_back(FileRanges(plan_, planned));
      gathered_.emplace_back();
      for (const PlannedTensor& tensor : planned.tensors) {
        if (tensor.gathered) gathered_.back().push_back(&tensor);
      }
      for (uint64_t begin = 0; begin < planned.bytes; begin += kWindowBytes) {
        windows_.push_back({f, begin, std::min(begin + kWindowBytes, planned.bytes)});
      }
    }
    return {};
  }

  void Work() {
    std::vector<std::byte> buffer(std::min(kWindowBytes, total_));
    while (true) {
      const size_t next = next_window_.fetch_add(1, std::memory_order_relaxed);
      if (next >= windows_.size()) return;
      auto status = Cancelled() ? Status(CancelledError()) : CopyWindow(windows_[next], &buffer);
      const std::lock_guard lock(mutex_);
      if (!status) {
        // The first error tells the cause; the others follow from it. No thread takes another window.
        if (errors_.empty()) errors_ = std::move(status.errors());
        next_window_.store(windows_.size(), std::memory_order_relaxed);
        return;
      }
      done_ += windows_[next].end - windows_[next].begin;
      if (options_.progress) options_.progress(done_, total_);
    }
  }

  Status CopyWindow(const Window& window, std::vector<std::byte>* buffer) {
    const std::span<std::byte> out(buffer->data(), window.end - window.begin);
    const std::string& header = plan_.files[window.file].header;
    if (window.begin < header.size()) {
      const size_t count = std::min<uint64_t>(header.size() - window.begin, out.size());
      std::memcpy(out.data(), header.data() + window.begin, count);
    }
    const std::vector<CopyRange>& ranges = ranges_[window.file];
    auto range = std::partition_point(ranges.begin(), ranges.end(),
                                      [&](const CopyRange& r) { return r.to + r.bytes <= window.begin; });
    for (; range != ranges.end() && range->to < window.end; ++range) {
      const uint64_t begin = std::max(range->to, window.begin);
      const uint64_t end = std::min(range->to + range->bytes, window.end);
      const auto part = out.subspan(begin - window.begin, end - begin);
      if (range->source == kZeros) {
        std::fill(part.begin(), part.end(), std::byte{0});
        continue;
      }
      if (auto status = sources_[range->source].ReadAt(part, range->from + (begin - range->to)); !status) return status;
      if (range->step != 0) scales_->Apply(range->step, part);
    }
    if (auto status = GatherTensors(window, out); !status) return status;
    return targets_[window.file].WriteAt(out, window.begin);
  }

  Status GatherTensors(const Window& window, std::span<std::byte> out) {
    const PlannedFile& file = plan_.files[window.file];
    for (const PlannedTensor* tensor : gathered_[window.file]) {
      const uint64_t first = file.header.size() + tensor->info.begin;
      const uint64_t begin = std::max(first, window.begin);
      const uint64_t end = std::min(file.header.size() + tensor->info.end, window.end);
      if (begin >= end) continue;
      const auto part = out.subspan(begin - window.begin, end - begin);
      auto status = Gather(*tensor->gathered, plan_.tensors, sources_, &*scales_, begin - first, part);
      if (!status) return status;
    }
    return {};
  }

  const Plan& plan_;
  const ExecOptions& options_;
  const uint64_t total_;
  std::optional<MergedScales> scales_;
  std::vector<File> sources_;
  std::vector<File> targets_;
  std::vector<std::vector<CopyRange>> ranges_;               // of each file
  std::vector<std::vector<const PlannedTensor*>> gathered_;  // of each file
  std::vector<Window> windows_;
  std::atomic<size_t> next_window_ = 0;
  std::mutex mutex_;  // guards done_ and errors_
  uint64_t done_ = 0;
  Errors errors_;
};

// Reads ranges that must be equal: scalars and scale vectors, never whole weights.
Result<std::vector<std::byte>> ReadRanges(const std::vector<File>& sources, const std::vector<CopyRange>& ranges) {
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

Status RunChecks(const Plan& plan) {
  if (plan.checks.empty()) return {};
  auto sources = OpenSources(plan);
  if (!sources) return sources.errors();
  Errors errors;
  for (const PlannedCheck& check : plan.checks) {
    auto a = ReadRanges(*sources, check.a);
    if (!a) return a.errors();
    auto b = ReadRanges(*sources, check.b);
    if (!b) return b.errors();
    if (*a == *b) continue;
    errors.push_back(
        {ErrorKind::kQuantConversionUnsupported,
         fmt::format("its {} differs from that of {}, and both weights become one", check.leaf, check.tensor_a),
         {},
         check.tensor_b,
         "unify the scales when quantizing, or pass --merge-scales max to re-express both under the "
         "larger one"});
  }
  if (!errors.empty()) return errors;
  return {};
}

Result<ExecReport> WriteFiles(const Plan& plan, const std::filesystem::path& directory, const ExecOptions& options) {
  return Copier(plan, options).Run(directory);
}

}  // namespace quantport
