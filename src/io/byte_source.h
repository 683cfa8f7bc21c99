// A file to be read, wherever it is. Everything that reads checkpoints reads through this.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "base/file_stamp.h"
#include "quantport/error.h"

namespace quantport {

class File;

// Safe in several threads.
class ByteSource {
 public:
  explicit ByteSource(std::string address) : address_(std::move(address)) {}
  ByteSource(const ByteSource&) = delete;
  ByteSource& operator=(const ByteSource&) = delete;
  virtual ~ByteSource() = default;

  // What Storage::OpenFile opens it by, and what errors call it.
  const std::string& address() const { return address_; }

  // What the file is now.
  virtual Result<FileStamp> Stamp() const = 0;
  Result<uint64_t> Size() const;

  // Fills `out` from `offset`; an end of the file before that is an error.
  Status ReadAt(std::span<std::byte> out, uint64_t offset) const;

  // The file of this machine that the bytes are in, for what only a descriptor can do: reading past the page cache,
  // sharing blocks, asking where they lie. Null where there is none, and everything goes through ReadAt.
  virtual const File* local() const { return nullptr; }

 private:
  // Reads at least one byte and at most out.size(), which is not 0; none at the end of the file.
  virtual Result<size_t> ReadSome(std::span<std::byte> out, uint64_t offset) const = 0;

  std::string address_;
};

// The whole text of a small file. Errors: kIo, also where the file is larger than `max_bytes`.
Result<std::string> ReadText(const ByteSource& source, uint64_t max_bytes);

}  // namespace quantport
