// Where checkpoints are read from: folders of files, on this machine (io/local_storage.h) or elsewhere.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "io/byte_source.h"
#include "quantport/error.h"

namespace quantport {

// A folder that files are read from. Names of files are relative to it and may lead into folders below.
class Folder {
 public:
  explicit Folder(std::string address) : address_(std::move(address)) {}
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  virtual ~Folder() = default;

  // What Storage::OpenFolder opens it by, and what errors call it.
  const std::string& address() const { return address_; }
  // The same of a file in it, for Storage::OpenFile.
  virtual std::string AddressOf(std::string_view file) const = 0;

  // Every file below the folder, sorted. Hidden folders, of version control and download caches, are left out. A link
  // to a folder outside counts as a file unless links are followed.
  virtual Result<std::vector<std::string>> List(bool follow_links) const = 0;
  // Whether a file is a link, or lies behind one, that leads out of the folder and of the download cache it is a part
  // of. Copies of such files may give away what nobody meant to.
  virtual bool LeadsOutside(std::string_view) const { return false; }
  // Whether the folder has an entry of this name, readable or not.
  virtual bool Has(std::string_view file) const = 0;
  virtual Result<std::unique_ptr<const ByteSource>> Open(std::string_view file) const = 0;

  // Errors: kLocked and kUnfinishedChange where the folder is being changed in place, or was when that was interrupted.
  virtual Status CheckNoUnfinishedChange() const { return {}; }

 private:
  std::string address_;
};

class Storage {
 public:
  Storage() = default;
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;
  virtual ~Storage() = default;

  virtual bool IsFolder(const std::string& address) const = 0;
  // Errors: kIo where there is no folder of this address.
  virtual Result<std::shared_ptr<const Folder>> OpenFolder(const std::string& address) const = 0;
  virtual Result<std::unique_ptr<const ByteSource>> OpenFile(const std::string& address) const = 0;
};

}  // namespace quantport
