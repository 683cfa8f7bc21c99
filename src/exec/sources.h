// A plan's source files, and what each was when it was opened or, where the plan knows that, planned with.
#pragma once

#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "io/storage.h"
#include "plan/plan.h"
#include "quantport/error.h"

namespace quantport {

// The error for a source that is not what it was.
Error ChangedError(const ByteSource& file);

// Safe in several threads.
class Sources {
 public:
  // Opens all of them. Errors: every problem of that; kIo for a file that is not what the plan was made from.
  static Result<Sources> Open(std::span<const PlanSource> planned, const Storage& storage);

  Sources() = default;
  explicit Sources(std::vector<std::unique_ptr<const ByteSource>> files) : files_(std::move(files)) {}

  // `source` is an index into Plan::sources.
  const ByteSource& operator[](size_t source) const { return *files_[source]; }
  size_t size() const { return files_.size(); }

  // Errors: kIo for every file that is not what it was.
  Status CheckUnchanged() const;

 private:
  std::vector<std::unique_ptr<const ByteSource>> files_;
  std::vector<FileStamp> stamps_;
};

}  // namespace quantport
