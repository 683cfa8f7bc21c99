#include "exec/sources.h"

#include "io/file.h"

namespace quantport {

Error ChangedError(const ByteSource& file) {
  return Error{ErrorKind::kIo,
               "the file changed while it was being read",
               file.address(),
               {},
               "run again when nothing writes to it"};
}

Result<Sources> Sources::Open(std::span<const PlanSource> planned, const Storage& storage) {
  Sources sources;
  Errors errors;
  for (const PlanSource& source : planned) {
    auto file = storage.OpenFile(source.address);
    auto stamp = file ? (*file)->Stamp() : Result<FileStamp>(file.errors());
    if (!stamp) {
      errors.insert(errors.end(), stamp.errors().begin(), stamp.errors().end());
      continue;
    }
    if (source.stamp && *source.stamp != *stamp) errors.push_back(ChangedError(**file));
    if (const File* local = (*file)->local()) local->AdviseSequential();
    sources.files_.push_back(std::move(*file));
    sources.stamps_.push_back(std::move(*stamp));
  }
  if (!errors.empty()) return errors;
  return sources;
}

Status Sources::CheckUnchanged() const {
  Errors errors;
  for (size_t i = 0; i < files_.size(); ++i) {
    auto stamp = files_[i]->Stamp();
    if (!stamp) return stamp.errors();
    if (*stamp != stamps_[i]) errors.push_back(ChangedError(*files_[i]));
  }
  if (!errors.empty()) return errors;
  return {};
}

}  // namespace quantport
