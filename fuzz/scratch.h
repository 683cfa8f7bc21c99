// Checkpoints of a fuzz target, in a folder in memory that goes away with the process.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "quantport/dtype.h"

namespace quantport::fuzz {

struct ScratchTensor {
  std::string name;
  DType dtype = DType::kU8;
  std::vector<uint64_t> shape;
  std::string bytes;
};

class Scratch {
 public:
  Scratch();
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }

  // An empty folder of this name; what it had before is gone.
  std::filesystem::path Fresh(std::string_view name) const;

 private:
  std::filesystem::path path_;
};

void WriteBytes(const std::filesystem::path& path, std::string_view bytes);
std::string ReadBytes(const std::filesystem::path& path);

// A file's bytes: the length, the header, and the data in the order given.
std::string Safetensors(const std::vector<ScratchTensor>& tensors);

// All tensors of a folder's files, which must be whole.
std::map<std::string, ScratchTensor> ReadTensors(const std::filesystem::path& folder);

// The same bytes for the same key.
std::string Fill(uint32_t key, size_t count);

}  // namespace quantport::fuzz
