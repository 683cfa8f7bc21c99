// What differs between two checkpoints, as text and JSON.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <span>

#include "base/json.h"
#include "base/text.h"
#include "quantport/quantport.h"

namespace quantport {
namespace {

constexpr size_t kExamples = 5;
constexpr size_t kGroups = 4;
constexpr size_t kValueWidth = 60;

std::string FormText(const TensorForm& form) {
  return fmt::format("{} [{}]", DTypeName(form.dtype), fmt::join(form.shape, ", "));
}

std::string_view KindTitle(DiffKind kind) {
  switch (kind) {
    case DiffKind::kOnlyInA:
      return "only in A";
    case DiffKind::kOnlyInB:
      return "only in B";
    case DiffKind::kDType:
      return "other dtype";
    case DiffKind::kShape:
      return "other shape";
    case DiffKind::kContent:
      return "other bytes";
    case DiffKind::kNotCompared:
      return "not compared";
  }
  return "";
}

// What tensors with a difference have in common: their leaf where one side lacks them, else their dtypes.
std::string GroupOf(const TensorDiff& diff) {
  if (!diff.a || !diff.b) return Printable(SplitLeaf(diff.name).leaf);
  if (diff.kind == DiffKind::kDType) return fmt::format("{} | {}", DTypeName(diff.a->dtype), DTypeName(diff.b->dtype));
  return std::string(DTypeName(diff.a->dtype));
}

std::string GroupsText(std::span<const TensorDiff> diffs) {
  std::map<std::string, size_t> counts;
  for (const TensorDiff& diff : diffs) ++counts[GroupOf(diff)];
  std::vector<std::pair<std::string, size_t>> groups(counts.begin(), counts.end());
  std::stable_sort(groups.begin(), groups.end(), [](const auto& x, const auto& y) { return x.second > y.second; });
  std::string out;
  for (size_t i = 0; i < std::min(groups.size(), kGroups); ++i)
    out += fmt::format("{}{} {}", i == 0 ? "" : ", ", groups[i].second, groups[i].first);
  if (groups.size() > kGroups) out += ", ...";
  return out;
}

std::string TensorLine(const TensorDiff& diff) {
  std::string line = fmt::format("  {}  ", Printable(diff.name));
  if (diff.a) line += FormText(*diff.a);
  if (diff.kind == DiffKind::kDType || diff.kind == DiffKind::kShape) line += " | ";
  if (diff.b && (!diff.a || diff.kind == DiffKind::kDType || diff.kind == DiffKind::kShape)) line += FormText(*diff.b);
  if (diff.kind == DiffKind::kContent) {
    line += fmt::format(": {} bytes differ, first in element [{}]", diff.differing_bytes, fmt::join(diff.first, ", "));
  }
  return line + "\n";
}

std::string ValueText(const std::string& value, bool all) {
  if (value.empty()) return "-";
  const std::string text = Printable(value);
  return all ? text : ShortenMiddle(text, kValueWidth);
}

std::string FileLine(const FileDiff& diff, bool all) {
  const std::string path = diff.path.empty() ? "the whole" : Printable(diff.path);
  return fmt::format("  {}: {} | {}\n", path, ValueText(diff.a, all), ValueText(diff.b, all));
}

bool IsWholeFile(const FileDiff& diff) { return diff.a.empty() && diff.b.empty(); }

// The lines of the first few differences, or of all of them.
template <typename T, typename Line>
std::string Listing(std::span<const T> diffs, bool all, Line line) {
  const size_t shown = all ? diffs.size() : std::min(diffs.size(), kExamples);
  std::string out;
  for (const T& diff : diffs.first(shown)) out += line(diff);
  if (shown < diffs.size()) out += fmt::format("  and {} more (--all lists them)\n", diffs.size() - shown);
  return out;
}

// Calls `show` with each run of neighbours for which `same` holds.
template <typename T, typename Same, typename Show>
void ForEachRun(const std::vector<T>& items, Same same, Show show) {
  for (size_t begin = 0; begin < items.size();) {
    size_t end = begin + 1;
    while (end < items.size() && same(items[begin], items[end])) ++end;
    show(std::span(items).subspan(begin, end - begin));
    begin = end;
  }
}

std::string TensorsText(const DiffReport& report, bool all) {
  std::string out;
  ForEachRun(
      report.tensors, [](const TensorDiff& x, const TensorDiff& y) { return x.kind == y.kind; },
      [&](std::span<const TensorDiff> diffs) {
        out += fmt::format("{}: {} tensors ({})\n", KindTitle(diffs[0].kind), diffs.size(), GroupsText(diffs));
        out += Listing(diffs, all, TensorLine);
      });
  return out;
}

std::string FilesText(const DiffReport& report, bool all) {
  std::string out;
  ForEachRun(
      report.files, [](const FileDiff& x, const FileDiff& y) { return x.file == y.file; },
      [&](std::span<const FileDiff> diffs) {
        const std::string file = Printable(diffs[0].file);
        if (IsWholeFile(diffs[0])) {
          out += diffs[0].kind == DiffKind::kContent ? fmt::format("{}: other content\n", file)
                                                     : fmt::format("{}: {}\n", file, KindTitle(diffs[0].kind));
          return;
        }
        out += fmt::format("{}: {} other values\n", file, diffs.size());
        out += Listing(diffs, all, [&](const FileDiff& diff) { return FileLine(diff, all); });
      });
  return out;
}

Json FormJson(const std::optional<TensorForm>& form) {
  if (!form) return nullptr;
  return {{"dtype", DTypeName(form->dtype)}, {"shape", form->shape}};
}

Json TensorJson(const TensorDiff& diff) {
  Json json = {
      {"kind", DiffKindName(diff.kind)}, {"name", diff.name}, {"a", FormJson(diff.a)}, {"b", FormJson(diff.b)}};
  if (diff.kind == DiffKind::kContent) {
    json["differing_bytes"] = diff.differing_bytes;
    json["first"] = diff.first;
  }
  return json;
}

Json FileJson(const FileDiff& diff) {
  Json json = {{"kind", DiffKindName(diff.kind)}, {"file", diff.file}};
  if (IsWholeFile(diff)) return json;
  json["path"] = diff.path;
  // A value that is null and one that is not there are told apart by the kind.
  for (const auto& [key, text] : {std::pair("a", &diff.a), std::pair("b", &diff.b)}) {
    if (text->empty()) continue;
    if (auto value = ParseJson(*text, diff.file, ErrorKind::kInvalidConfig)) json[key] = std::move(*value);
  }
  return json;
}

}  // namespace

std::string_view DiffKindName(DiffKind kind) {
  switch (kind) {
    case DiffKind::kOnlyInA:
      return "only_in_a";
    case DiffKind::kOnlyInB:
      return "only_in_b";
    case DiffKind::kDType:
      return "dtype";
    case DiffKind::kShape:
      return "shape";
    case DiffKind::kContent:
      return "content";
    case DiffKind::kNotCompared:
      return "not_compared";
  }
  return "";
}

std::string DiffText(const DiffReport& report, bool all) {
  std::string out = TensorsText(report, all) + FilesText(report, all);
  const std::string compared = report.data ? fmt::format("{} compared", HumanBytes(report.compared_bytes))
                                           : std::string("dtypes and shapes only");
  out += fmt::format("{}{}: {} tensors ({}) and {} files equal", out.empty() ? "" : "\n",
                     report.Same() ? "no difference" : "different", report.equal_tensors, compared, report.equal_files);
  if (!report.Same())
    out += fmt::format("; {} differences in tensors, {} in files", report.tensors.size(), report.files.size());
  return out + "\n";
}

std::string DiffJson(const DiffReport& report) {
  Json json = {{"same", report.Same()},
               {"a", report.a},
               {"b", report.b},
               {"data", report.data},
               {"equal_tensors", report.equal_tensors},
               {"equal_files", report.equal_files},
               {"compared_bytes", report.compared_bytes},
               {"tensors", Json::array()},
               {"files", Json::array()},
               {"notes", report.notes}};
  for (const TensorDiff& diff : report.tensors) json["tensors"].push_back(TensorJson(diff));
  for (const FileDiff& diff : report.files) json["files"].push_back(FileJson(diff));
  return DumpJson(json);
}

}  // namespace quantport
