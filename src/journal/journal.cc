#include "journal/journal.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/json.h"
#include "base/memory.h"
#include "io/folder_lock.h"
#include "journal/journal_json.h"

namespace quantport {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kMagic = "QPJRNL01";
constexpr uint64_t kReadAtOnce = 1 << 20;
const fs::path kUnpublished = fs::path(kStagingName) / "journal";

struct Trailer {
  uint64_t json_offset = 0;
  uint64_t json_bytes = 0;
  uint64_t crc = 0;
  uint64_t zero = 0;
  std::array<char, 8> magic = {};
};
static_assert(sizeof(Trailer) == 40);

uint64_t AddToCrc(uint64_t crc, std::span<const std::byte> bytes) {
  return ::crc32_z(crc, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
}

Error NotWhole(const fs::path& path, std::string_view why) {
  return Error{ErrorKind::kUnfinishedChange,
               fmt::format("not a whole journal: {}", why),
               path.string(),
               {},
               "it can't say how to finish the change; take the checkpoint from where it came"};
}

Result<uint64_t> CrcOf(const File& file, uint64_t bytes) {
  std::vector<std::byte> buffer(std::min(bytes, kReadAtOnce));
  uint64_t crc = 0;
  for (uint64_t at = 0; at < bytes; at += buffer.size()) {
    const auto part = std::span(buffer).first(std::min<uint64_t>(buffer.size(), bytes - at));
    if (auto status = file.ReadAt(part, at); !status) return status.errors();
    crc = AddToCrc(crc, part);
  }
  return crc;
}

}  // namespace

Result<JournalWriter> JournalWriter::Create(OutputFolder* folder) {
  auto file = folder->Create(kUnpublished);
  if (!file) return file.errors();
  JournalWriter writer(*file, folder);
  if (auto status = writer.Append(std::as_bytes(std::span(kMagic))); !status) return status.errors();
  return writer;
}

Status JournalWriter::Append(std::span<const std::byte> bytes) {
  if (auto status = file_->WriteAt(bytes, end_); !status) return status;
  crc_ = AddToCrc(crc_, bytes);
  end_ += bytes.size();
  return {};
}

Result<Piece> JournalWriter::Add(std::span<const std::byte> bytes) {
  const Piece piece{end_, bytes.size()};
  if (auto status = Append(bytes); !status) return status.errors();
  return piece;
}

// A journal that no recovery takes must not get its name.
Status JournalWriter::CheckReadable(std::string_view json) const {
  const std::string path = (folder_->path() / kJournalName).string();
  if (json.size() > kMaxJournalJson) {
    return Error{ErrorKind::kIo,
                 fmt::format("the change would take a journal of {} bytes, more than {}", json.size(), kMaxJournalJson),
                 path,
                 {},
                 "write to another folder with -o; copying the files anew makes them less fragmented"};
  }
  if (auto parsed = ParseJournal(json, end_, path); !parsed) return parsed.errors();
  return {};
}

Status JournalWriter::Publish(const Journal& journal, const std::atomic<bool>* cancel) {
  const std::string json = JournalJson(journal);
  if (auto status = CheckReadable(json); !status) return status;
  Trailer trailer;
  trailer.json_offset = end_;
  trailer.json_bytes = json.size();
  if (auto status = Append(std::as_bytes(std::span(json))); !status) return status;
  trailer.crc = crc_;
  std::copy(kMagic.begin(), kMagic.end(), trailer.magic.begin());
  if (auto status = Append(std::as_bytes(std::span(&trailer, 1))); !status) return status;
  // What the journal counts on must be on the disk before it.
  if (auto status = folder_->Sync(cancel); !status) return status;
  auto status = WithinMemory([&]() -> Status {
    if (auto renamed = folder_->Rename(kUnpublished, kJournalName); !renamed) return renamed;
    return folder_->SyncFolder("");
  });
  // The caller removes what was staged, which a journal would ask for.
  if (!status) (void)folder_->Remove(kJournalName);
  return status;
}

Result<JournalReader> JournalReader::Open(const fs::path& folder) {
  const fs::path path = folder / kJournalName;
  auto file = File::OpenForReading(path);
  if (!file) return file.errors();
  auto size = file->Size();
  if (!size) return size.errors();
  if (*size < kMagic.size() + sizeof(Trailer)) return NotWhole(path, "too short");
  Trailer trailer;
  const uint64_t end = *size - sizeof(Trailer);
  if (auto status = file->ReadAt(std::as_writable_bytes(std::span(&trailer, 1)), end); !status) return status.errors();
  if (!std::equal(kMagic.begin(), kMagic.end(), trailer.magic.begin()) || trailer.zero != 0)
    return NotWhole(path, "another kind of file");
  if (trailer.json_offset > end || trailer.json_bytes != end - trailer.json_offset ||
      trailer.json_bytes > kMaxJournalJson)
    return NotWhole(path, "its lengths contradict each other");
  auto crc = CrcOf(*file, end);
  if (!crc) return crc.errors();
  if (*crc != trailer.crc) return NotWhole(path, "its checksum differs");
  std::string json(trailer.json_bytes, '\0');
  if (auto status = file->ReadAt(std::as_writable_bytes(std::span(json)), trailer.json_offset); !status)
    return status.errors();
  auto journal = ParseJournal(json, trailer.json_offset, path.string());
  if (!journal) return journal.errors();
  return JournalReader(std::move(*file), std::move(*journal));
}

Result<std::string> JournalReader::Read(const Piece& piece) const {
  std::string bytes(piece.bytes, '\0');
  if (auto status = file_.ReadAt(std::as_writable_bytes(std::span(bytes)), piece.offset); !status)
    return status.errors();
  return bytes;
}

}  // namespace quantport
