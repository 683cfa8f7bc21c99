#include "diff/json_values.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace quantport {
namespace {

const JsonStyle kOneLine{.indent = -1, .final_newline = false};

bool IsPlainKey(const std::string& key) {
  return !key.empty() && std::all_of(key.begin(), key.end(), [](unsigned char c) {
    return c >= 0x80 || std::isalnum(c) != 0 || c == '_' || c == '-';
  });
}

std::string KeyPath(const std::string& path, const std::string& key) {
  if (!IsPlainKey(key)) return fmt::format("{}[{}]", path, DumpJson(Json(key), kOneLine));
  return path.empty() ? key : path + "." + key;
}

bool IsListOfStrings(const Json& json) {
  return json.is_array() && std::all_of(json.begin(), json.end(), [](const Json& entry) { return entry.is_string(); });
}

class Comparison {
 public:
  explicit Comparison(const std::string& file) : file_(file) {}

  void Compare(const Json& a, const Json& b, const std::string& path) {
    if (a.is_object() && b.is_object()) {
      CompareObjects(a, b, path);
    } else if (a.size() != b.size() && IsListOfStrings(a) && IsListOfStrings(b)) {
      CompareStrings(a, b, path);
    } else if (a.is_array() && b.is_array()) {
      CompareLists(a, b, path);
    } else if (a != b) {
      Add(DiffKind::kContent, path, &a, &b);
    }
  }

  std::vector<FileDiff> Take() { return std::move(found_); }

 private:
  void Add(DiffKind kind, const std::string& path, const Json* a, const Json* b) {
    found_.push_back(
        {kind, file_, path, a != nullptr ? DumpJson(*a, kOneLine) : "", b != nullptr ? DumpJson(*b, kOneLine) : ""});
  }

  void CompareObjects(const Json& a, const Json& b, const std::string& path) {
    // Looked up by a map of their own: an ordered object searches its keys one by one, and a vocabulary has many.
    std::map<std::string_view, const Json*> others;
    for (auto it = b.begin(); it != b.end(); ++it) others.emplace(it.key(), &*it);
    for (auto it = a.begin(); it != a.end(); ++it) {
      const auto other = others.find(it.key());
      if (other == others.end()) {
        Add(DiffKind::kOnlyInA, KeyPath(path, it.key()), &*it, nullptr);
      } else {
        Compare(*it, *other->second, KeyPath(path, it.key()));
        others.erase(other);
      }
    }
    for (const auto& [key, value] : others) Add(DiffKind::kOnlyInB, KeyPath(path, std::string(key)), nullptr, value);
  }

  void CompareStrings(const Json& a, const Json& b, const std::string& path) {
    std::multimap<std::string_view, const Json*> others;
    for (const Json& entry : b) others.emplace(entry.get_ref<const std::string&>(), &entry);
    for (const Json& entry : a) {
      const auto other = others.find(entry.get_ref<const std::string&>());
      if (other == others.end()) {
        Add(DiffKind::kOnlyInA, path + "[]", &entry, nullptr);
      } else {
        others.erase(other);
      }
    }
    for (const auto& [text, entry] : others) Add(DiffKind::kOnlyInB, path + "[]", nullptr, entry);
  }

  void CompareLists(const Json& a, const Json& b, const std::string& path) {
    for (size_t i = 0; i < std::max(a.size(), b.size()); ++i) {
      const std::string entry = fmt::format("{}[{}]", path, i);
      if (i >= b.size()) {
        Add(DiffKind::kOnlyInA, entry, &a[i], nullptr);
      } else if (i >= a.size()) {
        Add(DiffKind::kOnlyInB, entry, nullptr, &b[i]);
      } else {
        Compare(a[i], b[i], entry);
      }
    }
  }

  const std::string& file_;
  std::vector<FileDiff> found_;
};

}  // namespace

std::vector<FileDiff> CompareJsonValues(const Json& a, const Json& b, const std::string& file) {
  Comparison comparison(file);
  comparison.Compare(a, b, "");
  return comparison.Take();
}

}  // namespace quantport
