#include "diff/sidecars.h"

#include <algorithm>
#include <optional>

#include "base/json.h"
#include "diff/json_values.h"

namespace quantport {
namespace {

// Parsed JSON takes many times its text; a tokenizer.json beyond this is compared by its bytes.
constexpr uint64_t kMaxJsonBytes = 16 << 20;

Result<uint64_t> SizeOf(const Sidecars& side, const std::string& name) {
  if (const auto it = side.rewritten.find(name); it != side.rewritten.end()) return it->second.size();
  auto file = side.checkpoint.folder->Open(name);
  if (!file) return file.errors();
  return (*file)->Size();
}

Result<std::string> TextOf(const Sidecars& side, const std::string& name) {
  if (const auto it = side.rewritten.find(name); it != side.rewritten.end()) return it->second;
  auto file = side.checkpoint.folder->Open(name);
  if (!file) return file.errors();
  return ReadText(**file, kMaxJsonBytes);
}

class SidecarComparer {
 public:
  SidecarComparer(const Sidecars& a, const Sidecars& b, const WorkOptions& options) : a_(a), b_(b), options_(options) {}

  Result<SidecarDiff> Run() {
    const std::vector<std::string>& names_a = a_.checkpoint.sidecars;
    const std::vector<std::string>& names_b = b_.checkpoint.sidecars;
    std::vector<std::string> all;
    std::set_union(names_a.begin(), names_a.end(), names_b.begin(), names_b.end(), std::back_inserter(all));
    for (const std::string& name : all) {
      if (!std::binary_search(names_b.begin(), names_b.end(), name)) {
        diff_.files.push_back({DiffKind::kOnlyInA, name, {}, {}, {}});
      } else if (!std::binary_search(names_a.begin(), names_a.end(), name)) {
        diff_.files.push_back({DiffKind::kOnlyInB, name, {}, {}, {}});
      } else if (auto status = CompareFile(name); !status) {
        return status.errors();
      }
    }
    return std::move(diff_);
  }

 private:
  Status CompareFile(const std::string& name) {
    auto size_a = SizeOf(a_, name);
    if (!size_a) return size_a.errors();
    auto size_b = SizeOf(b_, name);
    if (!size_b) return size_b.errors();
    if (name.ends_with(".json") && std::max(*size_a, *size_b) <= kMaxJsonBytes) return CompareJson(name);
    if (*size_a != *size_b) {
      Differs(name);
      return {};
    }
    return CompareContent(name, *size_a);
  }

  Status CompareJson(const std::string& name) {
    auto text_a = TextOf(a_, name);
    if (!text_a) return text_a.errors();
    auto text_b = TextOf(b_, name);
    if (!text_b) return text_b.errors();
    if (*text_a == *text_b) {
      ++diff_.equal;
      return {};
    }
    const auto json_a = ParseJson(*text_a, name, ErrorKind::kInvalidConfig);
    const auto json_b = ParseJson(*text_b, name, ErrorKind::kInvalidConfig);
    // What is no JSON on one side can still be told from the other.
    if (!json_a || !json_b) {
      Differs(name);
      return {};
    }
    std::vector<FileDiff> found = CompareJsonValues(*json_a, *json_b, name);
    if (found.empty()) ++diff_.equal;
    diff_.files.insert(diff_.files.end(), found.begin(), found.end());
    return {};
  }

  Status CompareContent(const std::string& name, uint64_t size) {
    std::vector<std::unique_ptr<const ByteSource>> files;
    for (const Sidecars* side : {&a_, &b_}) {
      auto file = side->checkpoint.folder->Open(name);
      if (!file) return file.errors();
      files.push_back(std::move(*file));
    }
    auto differences = CompareBytes(files, {{{{0, 0, size}}, {{1, 0, size}}, size}}, options_);
    if (!differences) return differences.errors();
    if (differences->front().count == 0) {
      ++diff_.equal;
    } else {
      Differs(name);
    }
    return {};
  }

  void Differs(const std::string& name) { diff_.files.push_back({DiffKind::kContent, name, {}, {}, {}}); }

  const Sidecars& a_;
  const Sidecars& b_;
  const WorkOptions& options_;
  SidecarDiff diff_;
};

}  // namespace

Result<SidecarDiff> CompareSidecars(const Sidecars& a, const Sidecars& b, const WorkOptions& options) {
  return SidecarComparer(a, b, options).Run();
}

}  // namespace quantport
