#include "scratch.h"

#include <stdlib.h>  // NOLINT(modernize-deprecated-headers): mkdtemp

#include <cstring>
#include <fstream>
#include <iterator>

#include "check.h"

namespace quantport::fuzz {

namespace fs = std::filesystem;

Scratch::Scratch() {
  std::string name =
      (fs::exists("/dev/shm") ? fs::path("/dev/shm") : fs::temp_directory_path()) / "quantport-fuzz-XXXXXX";
  Check(::mkdtemp(name.data()) != nullptr, "a folder can be made");
  path_ = name;
}

Scratch::~Scratch() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

fs::path Scratch::Fresh(std::string_view name) const {
  fs::path folder = path_ / name;
  fs::remove_all(folder);
  fs::create_directory(folder);
  return folder;
}

void WriteBytes(const fs::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

std::string ReadBytes(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

std::string Safetensors(const std::vector<ScratchTensor>& tensors) {
  Json header = Json::object();
  std::string data;
  for (const ScratchTensor& tensor : tensors) {
    header[tensor.name] = {{"dtype", DTypeName(tensor.dtype)},
                           {"shape", tensor.shape},
                           {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
    data += tensor.bytes;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  std::string length(8, '\0');
  const uint64_t size = text.size();
  std::memcpy(length.data(), &size, length.size());
  return length + text + data;
}

std::map<std::string, ScratchTensor> ReadTensors(const fs::path& folder) {
  std::map<std::string, ScratchTensor> tensors;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() != ".safetensors") continue;
    const std::string bytes = ReadBytes(entry.path());
    uint64_t length = 0;
    Check(bytes.size() >= sizeof length, "a file has a header");
    std::memcpy(&length, bytes.data(), sizeof length);
    Check(length <= bytes.size() - sizeof length, "a header lies in its file");
    const Json header = Json::parse(bytes.substr(sizeof length, length), nullptr, false);
    Check(header.is_object(), "a header is JSON");
    for (const auto& [name, stated] : header.items()) {
      if (name == "__metadata__") continue;
      const auto dtype = ParseDType(stated["dtype"].get<std::string>());
      const auto begin = stated["data_offsets"][0].get<uint64_t>();
      const auto end = stated["data_offsets"][1].get<uint64_t>();
      Check(dtype && begin <= end && sizeof length + length + end <= bytes.size(), "a tensor lies in its file");
      tensors[name] = {name, *dtype, stated["shape"].get<std::vector<uint64_t>>(),
                       bytes.substr(sizeof length + length + begin, end - begin)};
    }
  }
  return tensors;
}

std::string Fill(uint32_t key, size_t count) {
  std::string bytes(count, '\0');
  for (char& byte : bytes) {
    key = key * 1664525 + 1013904223;
    byte = static_cast<char>(key >> 24);
  }
  return bytes;
}

}  // namespace quantport::fuzz
