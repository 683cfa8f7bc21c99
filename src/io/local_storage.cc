#include "io/local_storage.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "io/file.h"
#include "io/folder_lock.h"

namespace quantport {

namespace fs = std::filesystem;

namespace {

class LocalSource : public ByteSource {
 public:
  explicit LocalSource(File file) : ByteSource(file.path().string()), file_(std::move(file)) {}

  Result<FileStamp> Stamp() const override { return file_.Stamp(); }
  const File* local() const override { return &file_; }

 private:
  Result<size_t> ReadSome(std::span<std::byte> out, uint64_t offset) const override {
    return file_.ReadSome(out, offset);
  }

  File file_;
};

Result<std::unique_ptr<const ByteSource>> OpenLocal(const fs::path& path) {
  auto file = File::OpenForReading(path);
  if (!file) return file.errors();
  return std::unique_ptr<const ByteSource>(std::make_unique<LocalSource>(std::move(*file)));
}

Error CantList(const fs::path& directory, const std::error_code& code) {
  return Error{ErrorKind::kIo, fmt::format("can't list the folder: {}", code.message()), directory.string(), {}, {}};
}

bool IsInside(const fs::path& path, const fs::path& folder) {
  return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first == folder.end();
}

// A folder and what its files may be links to. The Hugging Face cache keeps files in models--*/blobs and links to them
// in models--*/snapshots/<revision>.
class Home {
 public:
  explicit Home(const fs::path& folder) {
    std::error_code code;
    folder_ = fs::canonical(folder, code);
    const fs::path snapshots = folder_.parent_path();
    if (snapshots.filename() == "snapshots" && snapshots.parent_path().filename().string().starts_with("models--"))
      blobs_ = snapshots.parent_path() / "blobs";
  }

  // False also of a link that leads nowhere: opening it says so.
  bool LeadsOutside(const fs::path& path) const {
    std::error_code code;
    const fs::path target = fs::canonical(path, code);
    return !code && !IsInside(target, folder_) && (blobs_.empty() || !IsInside(target, blobs_));
  }

 private:
  fs::path folder_;
  fs::path blobs_;
};

// Links to folders are followed, but for those that lead back to where they are, and out of `home` where that is given.
Status ListBelow(const fs::path& directory, const fs::path& relative, const Home* home, std::vector<fs::path>* above,
                 std::vector<std::string>* files) {
  std::error_code code;
  const fs::path here = fs::canonical(directory / relative, code);
  if (code) return CantList(directory / relative, code);
  if (std::find(above->begin(), above->end(), here) != above->end()) return {};
  above->push_back(here);
  fs::directory_iterator it(here, code);
  for (; !code && it != fs::directory_iterator(); it.increment(code)) {
    const fs::path name = it->path().filename();
    std::error_code ignored;
    const bool folder = fs::is_directory(it->path(), ignored);
    if (folder && name.string().starts_with(".")) continue;
    if (!folder || (home != nullptr && home->LeadsOutside(it->path()))) {
      files->push_back((relative / name).string());
    } else if (auto status = ListBelow(directory, relative / name, home, above, files); !status) {
      return status;
    }
  }
  above->pop_back();
  if (code) return CantList(directory / relative, code);
  return {};
}

class LocalFolder : public Folder {
 public:
  explicit LocalFolder(const std::string& path) : Folder(path), path_(path), home_(path_) {}

  std::string AddressOf(std::string_view file) const override { return (path_ / file).string(); }

  Result<std::vector<std::string>> List(bool follow_links) const override {
    std::vector<std::string> files;
    std::vector<fs::path> above;
    if (auto s = ListBelow(path_, {}, follow_links ? nullptr : &home_, &above, &files); !s) return s.errors();
    std::sort(files.begin(), files.end());
    return files;
  }

  bool LeadsOutside(std::string_view file) const override { return home_.LeadsOutside(path_ / file); }

  bool Has(std::string_view file) const override {
    std::error_code code;
    return fs::symlink_status(path_ / file, code).type() != fs::file_type::not_found;
  }

  Result<std::unique_ptr<const ByteSource>> Open(std::string_view file) const override {
    return OpenLocal(path_ / file);
  }

  Status CheckNoUnfinishedChange() const override { return quantport::CheckNoUnfinishedChange(path_); }

 private:
  fs::path path_;
  Home home_;
};

class Local : public Storage {
 public:
  bool IsFolder(const std::string& address) const override {
    std::error_code code;
    return fs::is_directory(address, code);
  }

  Result<std::shared_ptr<const Folder>> OpenFolder(const std::string& address) const override {
    if (IsFolder(address)) return std::shared_ptr<const Folder>(std::make_shared<LocalFolder>(address));
    std::error_code code;
    return Error{ErrorKind::kIo,
                 fs::exists(address, code) ? "not a folder" : "no such folder",
                 address,
                 {},
                 "give the folder that holds config.json and the safetensors files"};
  }

  Result<std::unique_ptr<const ByteSource>> OpenFile(const std::string& address) const override {
    return OpenLocal(address);
  }
};

}  // namespace

const Storage& LocalStorage() {
  static const Local kStorage;
  return kStorage;
}

}  // namespace quantport
