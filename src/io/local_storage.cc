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

// Links to folders are followed, but for those that lead back to where they are.
Status ListBelow(const fs::path& directory, const fs::path& relative, std::vector<fs::path>* above,
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
    if (!fs::is_directory(it->path(), ignored)) {
      files->push_back((relative / name).string());
    } else if (!name.string().starts_with(".")) {
      if (auto status = ListBelow(directory, relative / name, above, files); !status) return status;
    }
  }
  above->pop_back();
  if (code) return CantList(directory / relative, code);
  return {};
}

class LocalFolder : public Folder {
 public:
  explicit LocalFolder(const std::string& path) : Folder(path), path_(path) {}

  std::string AddressOf(std::string_view file) const override { return (path_ / file).string(); }

  Result<std::vector<std::string>> List() const override {
    std::vector<std::string> files;
    std::vector<fs::path> above;
    if (auto status = ListBelow(path_, {}, &above, &files); !status) return status.errors();
    std::sort(files.begin(), files.end());
    return files;
  }

  bool Has(std::string_view file) const override {
    std::error_code code;
    return fs::symlink_status(path_ / file, code).type() != fs::file_type::not_found;
  }

  Result<std::unique_ptr<const ByteSource>> Open(std::string_view file) const override {
    return OpenLocal(path_ / file);
  }

  std::optional<std::string> LeadsTo(std::string_view file) const override {
    std::error_code code;
    const fs::path home = fs::canonical(path_, code);
    const fs::path real = code ? fs::path() : fs::canonical(path_ / file, code);
    // What can't be followed is an error where it is opened.
    if (code || std::mismatch(home.begin(), home.end(), real.begin(), real.end()).first == home.end())
      return std::nullopt;
    return real.parent_path().string();
  }

  Status CheckNoUnfinishedChange() const override { return quantport::CheckNoUnfinishedChange(path_); }

 private:
  fs::path path_;
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
