#include "io/byte_source.h"

#include <fmt/format.h>

#include "io/read_whole.h"

namespace quantport {

Result<uint64_t> ByteSource::Size() const {
  auto stamp = Stamp();
  if (!stamp) return std::move(stamp.errors());
  return stamp->size;
}

Status ByteSource::ReadAt(std::span<std::byte> out, uint64_t offset) const {
  return ReadWhole(out, offset, address_,
                   [this](std::span<std::byte> rest, uint64_t at) { return ReadSome(rest, at); });
}

Result<std::string> ReadText(const ByteSource& source, uint64_t max_bytes) {
  auto size = source.Size();
  if (!size) return size.errors();
  if (*size > max_bytes) {
    return Error{ErrorKind::kIo,
                 fmt::format("the file has {} bytes, more than the {} that such a file can need", *size, max_bytes),
                 source.address(),
                 {},
                 {}};
  }
  std::string text(*size, '\0');
  if (auto status = source.ReadAt(std::as_writable_bytes(std::span(text)), 0); !status) return status.errors();
  return text;
}

}  // namespace quantport
