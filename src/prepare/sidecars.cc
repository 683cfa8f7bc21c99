#include "prepare/sidecars.h"

#include <algorithm>

namespace quantport {
namespace {

Result<FileStamp> StampOf(const Folder& folder, const std::string& name) {
  auto file = folder.Open(name);
  if (!file) return file.errors();
  return (*file)->Stamp();
}

}  // namespace

Status PlanCopies(const Checkpoint& checkpoint, Plan* plan) {
  Errors errors;
  for (const std::string& name : checkpoint.sidecars) {
    if (std::binary_search(checkpoint.outside.begin(), checkpoint.outside.end(), name)) {
      errors.push_back({ErrorKind::kLinkedFile,
                        "it leads out of the checkpoint's folder, and a copy could give away what nobody meant to",
                        checkpoint.folder->AddressOf(name),
                        {},
                        "remove the link, or pass --follow-links to copy what it leads to"});
      continue;
    }
    if (plan->texts.contains(name)) continue;
    auto stamp = StampOf(*checkpoint.folder, name);
    if (!stamp) {
      errors.insert(errors.end(), stamp.errors().begin(), stamp.errors().end());
      continue;
    }
    plan->copies.push_back({name, checkpoint.folder->AddressOf(name), std::move(*stamp)});
  }
  if (!errors.empty()) return errors;
  return {};
}

}  // namespace quantport
