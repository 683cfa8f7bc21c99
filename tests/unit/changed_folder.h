// A folder that is to be changed in place, its journal, and what its files are before and after.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "io/extents.h"
#include "io/folder_lock.h"
#include "journal/journal.h"
#include "support/checkpoint_builder.h"

namespace quantport::test {

inline constexpr uint64_t kBlock = 4096;

inline std::span<const std::byte> BytesOf(std::string_view text) { return std::as_bytes(std::span(text)); }

// Length field and `bytes` in all, with bytes that depend on `key`.
inline std::string HeaderOf(const std::string& key, uint64_t bytes) {
  const uint64_t length = bytes - sizeof(uint64_t);
  std::string header(sizeof(uint64_t), '\0');
  std::memcpy(header.data(), &length, sizeof(length));
  return header + FillBytes(key, length);
}

// A file in extents of three blocks each, where the file system can insert blocks.
inline void WriteFragmented(const std::filesystem::path& path, const std::string& bytes) {
  constexpr uint64_t kEvery = 3 * kBlock;
  std::string first;
  for (uint64_t at = 0; at < bytes.size(); at += kEvery) {
    const uint64_t end = std::min<uint64_t>(at + kEvery, bytes.size());
    // The last whole block of every stretch comes in later, beside the others on the device.
    first += bytes.substr(at, end == at + kEvery && end < bytes.size() ? kEvery - kBlock : end - at);
  }
  WriteFile(path, first);
  auto file = File::OpenForChange(path);
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE(file->Sync().ok());
  for (uint64_t at = kEvery - kBlock; at + kBlock < bytes.size(); at += kEvery) {
    ASSERT_TRUE(InsertRange(&*file, at, kBlock).ok());
    ASSERT_TRUE(file->WriteAt(BytesOf(std::string_view(bytes).substr(at, kBlock)), at).ok());
  }
  ASSERT_TRUE(file->Sync().ok());
  ASSERT_TRUE(ReadFile(path) == bytes);
}

struct BytesAt {
  uint64_t offset = 0;  // of the data
  std::string bytes;
};

class ChangedFolder {
 public:
  ChangedFolder() {
    for (const std::string_view name : {"", "/new", "/old"})
      std::filesystem::create_directory(folder() / (std::string(kStagingName) + std::string(name)));
    auto writer = JournalWriter::Create(output_.get());
    EXPECT_TRUE(writer.ok());
    writer_.emplace(std::move(*writer));
  }

  std::filesystem::path folder() const { return dir_.path(); }
  const TempDir& dir() const { return dir_; }

  // A shard of `header` + `data` bytes. `patches` replace bytes of its data, or are appended to it.
  void AddShard(const std::string& name, uint64_t header, uint64_t data, uint64_t inserted,
                const std::vector<BytesAt>& patches) {
    const std::string old_header = HeaderOf("old " + name, header);
    const std::string new_header = HeaderOf("new " + name, header + inserted);
    std::string bytes = FillBytes(name, data);
    ShardChange change;
    change.name = name;
    change.old_size = header + data;
    change.inserted = inserted;
    change.old_header = Add(old_header);
    change.new_header = Add(new_header);
    old[name] = old_header + bytes;
    if (inserted == 0) {
      WriteFile(folder() / name, old[name]);
    } else {
      WriteFragmented(folder() / name, old[name]);
      auto file = File::OpenForReading(folder() / name);
      auto extents = FileExtents(*file);
      ASSERT_TRUE(extents.ok());
      change.extents = std::move(*extents);
    }
    for (const BytesAt& patch : patches) {
      const bool within = patch.offset < data;
      const Piece old_piece = within ? Add(bytes.substr(patch.offset, patch.bytes.size())) : Piece();
      bytes.replace(patch.offset, patch.bytes.size(), patch.bytes);
      change.patches.push_back({header + inserted + patch.offset, old_piece, Add(patch.bytes)});
    }
    changed[name] = new_header + bytes;
    change.new_size = changed[name].size();
    journal.shards.push_back(std::move(change));
  }

  // Without bytes there is no such file before, or after.
  void AddReplacement(const std::string& name, const std::string* before, const std::string* after) {
    if (before != nullptr) WriteFile(folder() / name, old[name] = *before);
    if (after != nullptr) WriteFile(folder() / kStagingName / "new" / name, changed[name] = *after);
    journal.replacements.push_back({name, before != nullptr, after != nullptr});
  }

  void Publish() { ASSERT_TRUE(writer_->Publish(journal).ok()); }

  // The files beside the journal and the staging folder.
  std::map<std::string, std::string> Files(const std::filesystem::path& of) const {
    std::map<std::string, std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(of)) {
      const std::string name = entry.path().filename().string();
      if (!name.starts_with(".quantport-")) files[name] = ReadFile(entry.path());
    }
    return files;
  }
  std::map<std::string, std::string> Files() const { return Files(folder()); }

  // Not EXPECT_EQ of the bytes, which would print them.
  void ExpectFiles(const std::map<std::string, std::string>& want, const std::string& when) const {
    const auto files = Files();
    for (const auto& [name, bytes] : want) {
      const auto file = files.find(name);
      EXPECT_TRUE(file != files.end() && file->second == bytes) << name << " is missing or has other bytes " << when;
    }
    EXPECT_EQ(files.size(), want.size()) << when;
  }

  Journal journal;
  std::map<std::string, std::string> old;
  std::map<std::string, std::string> changed;

 private:
  Piece Add(std::string_view bytes) {
    auto piece = writer_->Add(BytesOf(bytes));
    EXPECT_TRUE(piece.ok());
    return *piece;
  }

  TempDir dir_;
  const std::unique_ptr<OutputFolder> output_ = OpenOutputFolder(dir_.path());
  std::optional<JournalWriter> writer_;
};

}  // namespace quantport::test
