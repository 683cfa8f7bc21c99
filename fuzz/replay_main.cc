// Runs a fuzz target over saved inputs: the files named, and all files below the folders named.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "check.h"

namespace {

namespace fs = std::filesystem;

void CollectInputs(const fs::path& path, std::vector<fs::path>* inputs) {
  if (!fs::is_directory(path)) {
    inputs->push_back(path);
    return;
  }
  for (const auto& entry : fs::recursive_directory_iterator(path)) {
    if (entry.is_regular_file()) inputs->push_back(entry.path());
  }
}

bool Replay(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (!in.is_open() || in.bad()) {
    std::fprintf(stderr, "can't read %s\n", path.c_str());
    return false;
  }
  // Named before it runs, so that a crash shows which input it was.
  std::printf("%s\n", path.c_str());
  std::fflush(stdout);
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<fs::path> inputs;
  for (int i = 1; i < argc; ++i) CollectInputs(argv[i], &inputs);
  if (inputs.empty()) {
    // A folder that went missing must not look like a pass.
    std::fprintf(stderr, "no input to replay\n");
    return 1;
  }
  for (const fs::path& input : inputs) {
    if (!Replay(input)) return 1;
  }
  std::printf("%zu inputs replayed\n", inputs.size());
  return 0;
}
