#include "diff/compare.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <optional>
#include <span>

namespace quantport {
namespace {

constexpr uint64_t kWindowBytes = 4 << 20;

// A place in a list of ranges. Lists may be long, so windows remember their place instead of searching it.
struct Cursor {
  size_t range = 0;
  uint64_t skipped = 0;  // bytes of that range

  void Advance(const std::vector<FileRange>& ranges, uint64_t bytes) {
    skipped += bytes;
    while (range < ranges.size() && skipped >= ranges[range].bytes) skipped -= ranges[range++].bytes;
  }
};

// A stretch of one pair that one thread compares.
struct Window {
  size_t pair = 0;
  uint64_t begin = 0;
  uint64_t bytes = 0;
  Cursor a;
  Cursor b;
};

class Comparer {
 public:
  Comparer(const std::vector<std::unique_ptr<const ByteSource>>& files, const std::vector<BytePair>& pairs,
           const WorkOptions& options)
      : files_(files), pairs_(pairs), options_(options), differences_(pairs.size()) {
    for (size_t p = 0; p < pairs.size(); ++p) AddWindows(p);
  }

  Result<std::vector<ByteDifference>> Run() {
    const auto stop = [this] { next_window_.store(windows_.size(), std::memory_order_relaxed); };
    progress_.emplace(options_.progress, total_);
    if (auto status = RunWorkers(
            std::min(options_.ThreadCount(2, 8), windows_.size()), [this] { return Work(); }, stop,
            options_.start_thread);
        !status)
      return status.errors();
    return std::move(differences_);
  }

 private:
  void AddWindows(size_t pair) {
    Window window{pair, 0, 0, {}, {}};
    const BytePair& both = pairs_[pair];
    for (uint64_t begin = 0; begin < both.bytes; begin += window.bytes) {
      window.begin = begin;
      window.bytes = std::min(kWindowBytes, both.bytes - begin);
      largest_ = std::max(largest_, window.bytes);
      windows_.push_back(window);
      window.a.Advance(both.a, window.bytes);
      window.b.Advance(both.b, window.bytes);
    }
    total_ += both.bytes;
  }

  Status Work() {
    std::vector<std::byte> a(largest_);
    std::vector<std::byte> b(largest_);
    while (true) {
      const size_t next = next_window_.fetch_add(1, std::memory_order_relaxed);
      if (next >= windows_.size()) return {};
      if (auto status = options_.Continue(); !status) return status;
      const Window& window = windows_[next];
      auto difference = CompareWindow(window, std::span(a).first(window.bytes), std::span(b).first(window.bytes));
      if (!difference) return difference.errors();
      {
        const std::lock_guard lock(mutex_);
        Add(*difference, &differences_[window.pair]);
      }
      progress_->Add(window.bytes);
    }
  }

  static void Add(const ByteDifference& found, ByteDifference* sum) {
    if (found.count == 0) return;
    sum->first = sum->count == 0 ? found.first : std::min(sum->first, found.first);
    sum->count += found.count;
  }

  Result<ByteDifference> CompareWindow(const Window& window, std::span<std::byte> a, std::span<std::byte> b) const {
    const BytePair& pair = pairs_[window.pair];
    if (auto status = Read(pair.a, window.a, a); !status) return status.errors();
    if (auto status = Read(pair.b, window.b, b); !status) return status.errors();
    if (std::memcmp(a.data(), b.data(), a.size()) == 0) return ByteDifference();
    const auto first = static_cast<uint64_t>(std::mismatch(a.begin(), a.end(), b.begin()).first - a.begin());
    uint64_t count = 0;
    for (size_t i = first; i < a.size(); ++i) count += a[i] != b[i] ? 1 : 0;
    return ByteDifference{count, window.begin + first};
  }

  Status Read(const std::vector<FileRange>& ranges, Cursor at, std::span<std::byte> out) const {
    while (!out.empty()) {
      const FileRange& range = ranges[at.range];
      const auto part = out.first(std::min<uint64_t>(out.size(), range.bytes - at.skipped));
      if (auto status = files_[range.file]->ReadAt(part, range.offset + at.skipped); !status) return status;
      at.Advance(ranges, part.size());
      out = out.subspan(part.size());
    }
    return {};
  }

  const std::vector<std::unique_ptr<const ByteSource>>& files_;
  const std::vector<BytePair>& pairs_;
  const WorkOptions& options_;
  std::vector<Window> windows_;
  uint64_t largest_ = 0;
  uint64_t total_ = 0;
  std::atomic<size_t> next_window_ = 0;
  std::optional<Progress> progress_;
  std::mutex mutex_;  // guards differences_
  std::vector<ByteDifference> differences_;
};

}  // namespace

Result<std::vector<ByteDifference>> CompareBytes(const std::vector<std::unique_ptr<const ByteSource>>& files,
                                                 const std::vector<BytePair>& pairs, const WorkOptions& options) {
  return Comparer(files, pairs, options).Run();
}

}  // namespace quantport
