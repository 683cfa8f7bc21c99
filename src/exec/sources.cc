#include "exec/sources.h"

namespace quantport {
namespace {

Error ChangedError(const File& file) {
  return Error{ErrorKind::kIo,
               "the file changed while it was being read",
               file.path().string(),
               {},
               "run again when nothing writes to it"};
}

}  // namespace

Result<Sources> OpenSources(const Plan& plan) {
  Sources sources;
  Errors errors;
  for (size_t i = 0; i < plan.sources.size(); ++i) {
    auto file = File::OpenForReading(plan.sources[i]);
    auto stamp = file ? file->Stamp() : Result<FileStamp>(file.errors());
    if (!stamp) {
      errors.insert(errors.end(), stamp.errors().begin(), stamp.errors().end());
      continue;
    }
    if (i < plan.stamps.size() && plan.stamps[i] && *plan.stamps[i] != *stamp) errors.push_back(ChangedError(*file));
    file->AdviseSequential();
    sources.files.push_back(std::move(*file));
    sources.stamps.push_back(*stamp);
  }
  if (!errors.empty()) return errors;
  return sources;
}

Status CheckUnchanged(const Sources& sources) {
  Errors errors;
  for (size_t i = 0; i < sources.files.size(); ++i) {
    auto stamp = sources.files[i].Stamp();
    if (!stamp) return stamp.errors();
    if (*stamp != sources.stamps[i]) errors.push_back(ChangedError(sources.files[i]));
  }
  if (!errors.empty()) return errors;
  return {};
}

}  // namespace quantport
