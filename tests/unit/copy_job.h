// A plan over real files, for tests of what carries plans out.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "exec/copy.h"
#include "io/local_storage.h"
#include "support/checkpoint_builder.h"

namespace quantport::test {

inline constexpr uint64_t kMiB = 1 << 20;

// A plan over real files, and the bytes its outputs must have.
class Job {
 public:
  Job() { std::filesystem::create_directory(out()); }

  void AddSource(uint64_t bytes) {
    const std::string name = fmt::format("source-{}", contents_.size());
    contents_.push_back(FillBytes(name, bytes));
    WriteFile(dir_ / name, contents_.back());
    plan.sources.push_back({dir_ / name});
    // Data does not begin at the start of a file.
    plan.tensors.push_back({fmt::format("t{}", contents_.size() - 1), static_cast<uint32_t>(contents_.size() - 1), 5});
  }

  void AddFile(const std::string& header) {
    plan.files.push_back({fmt::format("out-{}", plan.files.size()), header, {}, header.size()});
    expected.push_back(header);
  }

  // Appends a tensor that is made of these ranges to the last file; offsets count from the tensor's data.
  void AddTensor(const std::vector<Run>& runs) {
    PlannedFile& file = plan.files.back();
    PlannedTensor tensor;
    tensor.info.begin = file.bytes - file.header.size();
    uint64_t size = 0;
    for (Run run : runs) {
      run.target = size;
      size += run.bytes;
      expected.back() += contents_[run.tensor].substr(5 + run.source, run.bytes);
      tensor.runs.push_back(run);
    }
    tensor.info.end = tensor.info.begin + size;
    file.bytes += size;
    file.tensors.push_back(std::move(tensor));
  }

  // Appends bytes that no source has.
  void AddLiteral(const std::string& bytes) {
    PlannedFile& file = plan.files.back();
    PlannedTensor tensor;
    tensor.info.begin = file.bytes - file.header.size();
    tensor.info.end = tensor.info.begin + bytes.size();
    tensor.gathered.emplace();
    tensor.gathered->shape = {bytes.size()};
    for (const char c : bytes) tensor.gathered->literal.push_back(static_cast<std::byte>(c));
    file.bytes += bytes.size();
    file.tensors.push_back(std::move(tensor));
    expected.back() += bytes;
  }

  Status Write(int threads = 0, std::function<void(uint64_t, uint64_t)> progress = {},
               const std::atomic<bool>* cancel = nullptr) {
    auto report =
        WriteFiles(plan, LocalStorage(), OpenOutputFolder(out()).get(), "", {{threads, std::move(progress), cancel}});
    if (!report) return report.errors();
    return {};
  }

  void ExpectWritten() const {
    for (size_t i = 0; i < expected.size(); ++i) {
      // Not EXPECT_EQ: it would print megabytes.
      EXPECT_TRUE(ReadFile(out() / plan.files[i].name) == expected[i]) << plan.files[i].name;
    }
  }

  std::filesystem::path out() const { return dir_ / "out"; }
  const TempDir& dir() const { return dir_; }

  Plan plan;
  std::vector<std::string> expected;

 private:
  TempDir dir_;
  std::vector<std::string> contents_;
};

// Two sources and an output of 20 MiB: six windows of 4 MiB.
inline void AddLargeFile(Job* job) {
  job->AddSource(12 * kMiB);
  job->AddSource(9 * kMiB);
  job->AddFile(std::string(1000, 'h'));
  job->AddTensor({{0, 0, 0, 11 * kMiB}, {1, 17, 0, 8 * kMiB}, {0, 3, 0, kMiB}});
}

}  // namespace quantport::test
