#include "support/checkpoint_builder.h"

#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>

namespace quantport::test {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

size_t ByteCount(const TestTensor& tensor) {
  size_t bits = static_cast<size_t>(DTypeBits(ParseDType(tensor.dtype).value()));
  for (const uint64_t size : tensor.shape) bits *= size;
  return bits / 8;
}

}  // namespace

TempDir::TempDir() {
  std::string pattern = (fs::temp_directory_path() / "quantport-test-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
  path_ = pattern;
}

TempDir::~TempDir() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

std::string FillBytes(const std::string& key, size_t count) {
  uint32_t state = 2166136261u;
  for (const char c : key) state = (state ^ static_cast<unsigned char>(c)) * 16777619u;
  std::string bytes(count, '\0');
  for (char& byte : bytes) {
    state = state * 1664525u + 1013904223u;
    byte = static_cast<char>(state >> 24);
  }
  return bytes;
}

std::string RawSafetensors(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  std::string out(sizeof length, '\0');
  std::memcpy(out.data(), &length, sizeof length);
  return out + header + data;
}

std::string SafetensorsBytes(const std::vector<TestTensor>& tensors) {
  Json header = {{"__metadata__", {{"format", "pt"}}}};
  std::string data;
  for (const TestTensor& tensor : tensors) {
    const std::string bytes = tensor.bytes.empty() ? FillBytes(tensor.name, ByteCount(tensor)) : tensor.bytes;
    header[tensor.name] = {
        {"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {data.size(), data.size() + bytes.size()}}};
    data += bytes;
  }
  return RawSafetensors(header.dump(), data);
}

void WriteFile(const fs::path& path, const std::string& bytes) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << bytes;
}

std::string ReadFile(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

void WriteCheckpoint(const fs::path& directory, const std::string& config, const std::vector<TestTensor>& tensors,
                     size_t shards) {
  fs::create_directories(directory);
  if (!config.empty()) WriteFile(directory / "config.json", config);
  if (shards == 1) {
    WriteFile(directory / "model.safetensors", SafetensorsBytes(tensors));
    return;
  }
  Json map = Json::object();
  size_t total = 0;
  for (size_t s = 0; s < shards; ++s) {
    std::vector<TestTensor> part;
    for (size_t i = s; i < tensors.size(); i += shards) part.push_back(tensors[i]);
    char name[64];
    std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", s + 1, shards);
    for (const TestTensor& tensor : part) {
      map[tensor.name] = name;
      total += ByteCount(tensor);
    }
    WriteFile(directory / name, SafetensorsBytes(part));
  }
  WriteFile(directory / "model.safetensors.index.json",
            Json{{"metadata", {{"total_size", total}}}, {"weight_map", map}}.dump(2));
}

std::map<std::string, TestTensor> ReadCheckpoint(const fs::path& directory) {
  std::map<std::string, TestTensor> out;
  for (const auto& entry : fs::directory_iterator(directory)) {
    if (entry.path().extension() != ".safetensors") continue;
    const std::string file = ReadFile(entry.path());
    uint64_t length = 0;
    std::memcpy(&length, file.data(), sizeof length);
    const Json header = Json::parse(file.substr(8, length));
    const std::string data = file.substr(8 + length);
    for (const auto& [name, info] : header.items()) {
      if (name == "__metadata__") continue;
      const size_t begin = info["data_offsets"][0].get<size_t>();
      const size_t end = info["data_offsets"][1].get<size_t>();
      const bool fresh =
          out.emplace(name, TestTensor{name, info["dtype"].get<std::string>(),
                                       info["shape"].get<std::vector<uint64_t>>(), data.substr(begin, end - begin)})
              .second;
      if (!fresh) throw std::runtime_error(name + " stands twice");
    }
  }
  return out;
}

}  // namespace quantport::test
