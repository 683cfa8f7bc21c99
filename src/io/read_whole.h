// Reading all of a range where a single read may return less.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "quantport/error.h"

namespace quantport {

// Fills `out` from `offset` by calls of `read_some(out, offset)`, which returns a Result of how many bytes it read: at
// least one, or none at the end of the file. The end within the range is an error that names `file`.
template <typename ReadSome>
Status ReadWhole(std::span<std::byte> out, uint64_t offset, const std::string& file, const ReadSome& read_some) {
  while (!out.empty()) {
    auto count = read_some(out, offset);
    if (!count) return std::move(count.errors());
    if (*count == 0) {
      return Error{ErrorKind::kIo,
                   fmt::format("the file ends at byte {}, {} bytes too early", offset, out.size()),
                   file,
                   {},
                   "did it change while it was read?"};
    }
    out = out.subspan(*count);
    offset += *count;
  }
  return {};
}

}  // namespace quantport
