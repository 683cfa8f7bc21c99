// A storage that keeps records of what is read from another, and fails or shortens it on demand.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "io/storage.h"

namespace quantport::test {

struct ReadRecord {
  std::string address;
  uint64_t offset = 0;
  uint64_t bytes = 0;  // that were given
};

// What is to go wrong. Everything that is asked of the storage counts: opening, listing, stamping, and every read.
struct Faults {
  uint64_t fail_at = 0;                                    // which of them fails, from 1 on; 0: none
  size_t read_bytes = std::numeric_limits<size_t>::max();  // the most that one read gives
  // Files whose name contains this end that early, although their stamps say otherwise, as when another process cuts
  // them after they were opened.
  std::string cut_file;
  uint64_t cut_at = 0;
};

// Its files have no descriptor, so that every byte goes through it.
class WatchedStorage : public Storage {
 public:
  // `under` must outlive this.
  explicit WatchedStorage(const Storage& under, Faults faults = {})
      : log_(std::make_shared<Log>(std::move(faults))), under_(under) {}

  bool IsFolder(const std::string& address) const override { return under_.IsFolder(address); }
  Result<std::shared_ptr<const Folder>> OpenFolder(const std::string& address) const override;
  Result<std::unique_ptr<const ByteSource>> OpenFile(const std::string& address) const override;

  std::vector<ReadRecord> reads() const;
  // How many things were asked for.
  uint64_t asked() const;
  // The file or folder that failed.
  std::optional<std::string> failed() const;

 private:
  class WatchedFolder;
  class WatchedSource;

  struct Log {
    explicit Log(Faults what) : faults(std::move(what)) {}
    // An error where it is this one's turn to fail.
    Status Ask(const std::string& address);

    const Faults faults;
    mutable std::mutex mutex;  // guards what follows
    std::vector<ReadRecord> reads;
    uint64_t asked = 0;
    std::optional<std::string> failed;
  };

  static Result<std::unique_ptr<const ByteSource>> Watch(Result<std::unique_ptr<const ByteSource>> source,
                                                         const std::shared_ptr<Log>& log);

  std::shared_ptr<Log> log_;
  const Storage& under_;
};

}  // namespace quantport::test
