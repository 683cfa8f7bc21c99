// Writes small checkpoints for tests. Its safetensors writer is its own, so that a defect of the library's can't hide.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "quantport/dtype.h"

namespace quantport::test {

// A folder that goes away with the test.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

struct TestTensor {
  std::string name;
  std::string dtype;
  std::vector<uint64_t> shape;
  std::string bytes;  // empty: bytes that depend on the name
};

// Deterministic bytes that depend on `key`.
std::string FillBytes(const std::string& key, size_t count);

// The file's bytes: length, JSON header, data in the order given.
std::string SafetensorsBytes(const std::vector<TestTensor>& tensors);

// A file with this header text as it is, and this data.
std::string RawSafetensors(const std::string& header, const std::string& data);

void WriteFile(const std::filesystem::path& path, const std::string& bytes);
std::string ReadFile(const std::filesystem::path& path);

// Writes config.json and model.safetensors, or with `shards` > 1 model-0000x-of-0000y.safetensors and an index.
void WriteCheckpoint(const std::filesystem::path& directory, const std::string& config,
                     const std::vector<TestTensor>& tensors, size_t shards = 1);

// Every tensor of a folder's safetensors files, read by this file's own parser.
std::map<std::string, TestTensor> ReadCheckpoint(const std::filesystem::path& directory);

}  // namespace quantport::test
