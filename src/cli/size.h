#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace quantport::cli {

// "5GB" (decimal), "5GiB" (binary), "500000": a size in bytes, or nothing.
std::optional<uint64_t> ParseSize(const std::string& text);

}  // namespace quantport::cli
