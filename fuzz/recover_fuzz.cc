// Replaying journals: an input is what stands in a stranger's folder behind an interrupted change, as pieces between
// NUL bytes: the journal's JSON, the bytes before it, the shard, the staged file, the old one. The journal's checksum
// is right, so that its JSON is what decides. Recovery ends, stays in its folder, and leaves nothing to be recovered
// where it succeeds.
#include <zlib.h>

#include <cstring>
#include <string>
#include <vector>

#include "check.h"
#include "io/folder_lock.h"
#include "quantport/quantport.h"
#include "scratch.h"

namespace quantport {
namespace {

using fuzz::Check;
using fuzz::Scratch;

constexpr std::string_view kMagic = "QPJRNL01";
constexpr std::string_view kOutside = "not of this folder";

void Append(uint64_t number, std::string* bytes) {
  char raw[sizeof number];
  std::memcpy(raw, &number, sizeof number);
  bytes->append(raw, sizeof raw);
}

std::string JournalBytes(std::string_view json, std::string_view pieces) {
  std::string bytes = std::string(kMagic) + std::string(pieces);
  const uint64_t offset = bytes.size();
  bytes += json;
  const uint64_t crc = ::crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
  Append(offset, &bytes);
  Append(json.size(), &bytes);
  Append(crc, &bytes);
  Append(0, &bytes);
  return bytes + std::string(kMagic);
}

std::vector<std::string> PartsOf(std::string_view input) {
  std::vector<std::string> parts(5);
  size_t at = 0;
  for (const char c : input) {
    if (c == '\0' && at + 1 < parts.size()) {
      ++at;
    } else {
      parts[at] += c;
    }
  }
  return parts;
}

void WriteFolder(const std::filesystem::path& folder, const std::vector<std::string>& parts) {
  const auto staging = folder / kStagingName;
  std::filesystem::create_directories(staging / "new");
  std::filesystem::create_directories(staging / "old");
  fuzz::WriteBytes(folder / kJournalName, JournalBytes(parts[0], parts[1]));
  fuzz::WriteBytes(folder / "model.safetensors", parts[2]);
  fuzz::WriteBytes(staging / "new" / "config.json", parts[3]);
  if (!parts[4].empty()) fuzz::WriteBytes(folder / "config.json", parts[4]);
  // Names inside that lead out of it: nothing may be written through them.
  std::filesystem::create_symlink("../outside", folder / "linked.safetensors");
}

void CheckRecovery(const Scratch& scratch, const std::vector<std::string>& parts, bool undo) {
  const auto folder = scratch.Fresh("folder");
  fuzz::WriteBytes(scratch / "outside", kOutside);
  WriteFolder(folder, parts);
  const auto report = Recover(folder, undo);
  if (!report) {
    for (const Error& error : report.errors()) Check(!error.message.empty(), "an error says what is wrong");
  }
  Check(fuzz::ReadBytes(scratch / "outside") == kOutside, "recovery stays in its folder");
  if (!report) return;
  Check(!std::filesystem::exists(folder / kJournalName), "a recovered folder has no journal");
  const auto again = Recover(folder, undo);
  Check(again.ok() && again->outcome == RecoverOutcome::kNothing, "a recovered folder has nothing to be recovered");
}

}  // namespace
}  // namespace quantport

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quantport;
  static const Scratch scratch;
  const std::vector<std::string> parts = PartsOf({reinterpret_cast<const char*>(data), size});
  CheckRecovery(scratch, parts, false);
  CheckRecovery(scratch, parts, true);
  return 0;
}
