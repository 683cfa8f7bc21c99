#include "verify/written.h"

#include <fmt/format.h>

#include <unordered_map>

#include "checkpoint/checkpoint.h"
#include "io/local_storage.h"

namespace quantport {

Status VerifyWritten(const Plan& plan, const std::filesystem::path& directory, bool being_changed) {
  auto checkpoint = OpenCheckpoint(LocalStorage(), directory.string(), {.being_changed = being_changed});
  if (!checkpoint) return checkpoint.errors();
  std::unordered_map<std::string_view, std::pair<const TensorInfo*, std::string_view>> planned;
  for (const PlannedFile& file : plan.files) {
    for (const PlannedTensor& tensor : file.tensors)
      planned.emplace(tensor.info.name, std::pair(&tensor.info, std::string_view(file.name)));
  }
  Errors errors;
  const auto fail = [&](std::string message, const std::string& tensor) {
    errors.push_back({ErrorKind::kVerification, std::move(message), directory.string(), tensor,
                      "please report this as a defect of quantport"});
  };
  const TensorTable& table = checkpoint->table;
  for (const StoredTensor& tensor : table.tensors) {
    const auto it = planned.find(tensor.info.name);
    if (it == planned.end()) {
      fail("written, but not planned", tensor.info.name);
      continue;
    }
    const auto& [info, file] = it->second;
    const bool same = info->dtype == tensor.info.dtype && info->shape == tensor.info.shape &&
                      info->begin == tensor.info.begin && info->end == tensor.info.end &&
                      file == table.shards[tensor.shard].name;
    if (!same) fail("written otherwise than planned", tensor.info.name);
  }
  if (table.tensors.size() != planned.size())
    fail(fmt::format("{} tensors written, {} planned", table.tensors.size(), planned.size()), "");
  if (!errors.empty()) return errors;
  return {};
}

}  // namespace quantport
