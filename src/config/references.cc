#include "config/references.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>

#include "base/json_object.h"
#include "base/text.h"
#include "dialect/quantization_json.h"

namespace quantport {
namespace {

size_t Depth(std::string_view path) { return static_cast<size_t>(std::count(path.begin(), path.end(), '.')) + 1; }

// `path` without its last `count` components, or nothing where that leaves none.
std::optional<std::string> DropComponents(std::string path, size_t count) {
  for (; count > 0; --count) {
    const size_t dot = path.rfind('.');
    if (dot == std::string::npos) return std::nullopt;
    path.resize(dot);
  }
  return path;
}

// The last `count` components of `path`, or all of it.
std::string LastComponents(std::string_view path, size_t count) {
  size_t begin = path.size();
  for (; count > 0; --count) {
    const size_t dot = path.substr(0, begin).rfind('.');
    if (dot == std::string_view::npos) return std::string(path);
    begin = dot;
  }
  return std::string(path.substr(begin + 1));
}

// "<container>.<i>.<linear>" -> "<container>"; anything else -> "".
std::string ExpertContainer(std::string_view module) {
  const auto [container, number] = SplitLeaf(SplitLeaf(module).module);
  return IsDigits(number) ? std::string(container) : std::string();
}

bool IsAtOrBelow(std::string_view module, std::string_view path) {
  return module.starts_with(path) && (module.size() == path.size() || module[path.size()] == '.');
}

std::vector<std::string> AllHubModules(const std::map<std::string, std::vector<std::string>>& modules) {
  std::vector<std::string> names;
  for (const auto& [module, hubs] : modules) names.insert(names.end(), hubs.begin(), hubs.end());
  return names;
}

std::vector<std::string> AllKeys(const std::map<std::string, std::vector<std::string>>& modules) {
  std::vector<std::string> names;
  for (const auto& [module, hubs] : modules) names.push_back(module);
  return names;
}

void AddOnce(std::string entry, std::vector<std::string>* entries) {
  if (std::find(entries->begin(), entries->end(), entry) == entries->end()) entries->push_back(std::move(entry));
}

// Of paths, those that lie below no other of them.
std::vector<std::string> WithoutCovered(const std::vector<std::string>& paths) {
  const std::unordered_set<std::string_view> all(paths.begin(), paths.end());
  std::vector<std::string> rest;
  std::copy_if(paths.begin(), paths.end(), std::back_inserter(rest), [&](std::string_view path) {
    for (size_t dot = path.rfind('.'); dot != std::string_view::npos; dot = path.rfind('.')) {
      path = path.substr(0, dot);
      if (all.contains(path)) return false;
    }
    return true;
  });
  return rest;
}

bool IsExpression(Matching matching, std::string_view entry) {
  return matching == Matching::kRegexStart || matching == Matching::kRegexSearch ||
         (matching == Matching::kSegments && HasSpecialCharacters(entry));
}

}  // namespace

// One entry, and what is known of it.
struct ReferenceRewriter::Task {
  std::string_view entry;  // without a sign
  EntrySyntax syntax = EntrySyntax::kNames;
  MatchBudget* budget = nullptr;
  Matching matching = MatchingOf(entry, syntax);
  // A name, or a glob with its only wildcard at the end: a path that can be renamed, and what stands behind it.
  std::string_view path = {};
  std::string_view behind = {};
  std::vector<uint32_t> in_memory = {};
  std::vector<uint32_t> wanted = {};  // on the hub

  void FindPath() {
    if (matching == Matching::kEnd || IsExpression(matching, entry)) return;
    if (matching == Matching::kGlob) behind = entry.ends_with(".*") ? ".*" : entry.ends_with("*") ? "*" : "";
    path = entry.substr(0, entry.size() - behind.size());
    if (IsGlob(path)) path = {};
  }
};

ReferenceRewriter::ReferenceRewriter(const std::map<std::string, std::vector<std::string>>& modules,
                                     std::function<std::string(const std::string&)> rename)
    : in_memory_(AllKeys(modules)), hub_(AllHubModules(modules)), rename_(std::move(rename)) {
  for (const std::string& module : in_memory_.names()) {
    std::vector<uint32_t> hubs;
    for (const std::string& hub : modules.at(module)) {
      const auto it = std::lower_bound(hub_.names().begin(), hub_.names().end(), hub);
      hubs.push_back(static_cast<uint32_t>(it - hub_.names().begin()));
    }
    to_hub_.push_back(std::move(hubs));
  }
}

std::vector<uint32_t> ReferenceRewriter::HubOf(const std::vector<uint32_t>& in_memory) const {
  std::vector<uint32_t> hubs;
  for (const uint32_t module : in_memory) hubs.insert(hubs.end(), to_hub_[module].begin(), to_hub_[module].end());
  std::sort(hubs.begin(), hubs.end());
  hubs.erase(std::unique(hubs.begin(), hubs.end()), hubs.end());
  return hubs;
}

// The hub paths of an in-memory path: those as far above the hub modules as it is above the modules they came from. One
// path may become several (MiniMax-M3's multi_modal_projector).
ReferenceRewriter::Entries ReferenceRewriter::RenamePath(const Task& task) const {
  Entries paths;
  for (const uint32_t module : task.in_memory) {
    const std::string& name = in_memory_.names()[module];
    if (!IsAtOrBelow(name, task.path)) continue;
    const size_t below = Depth(name) - Depth(task.path);
    for (const uint32_t hub : to_hub_[module]) {
      // Stacked experts are one module in memory and many on the hub, two levels further down.
      std::string level = ExpertContainer(hub_.names()[hub]);
      if (level.empty() || !ExpertContainer(name).empty()) level = hub_.names()[hub];
      auto above = DropComponents(std::move(level), below);
      if (!above) return {};
      AddOnce(std::move(*above), &paths);
    }
  }
  return WithoutCovered(paths);
}

// For what names modules by their last segments: as many of the hub's, and more where these are other modules' too.
std::vector<ReferenceRewriter::Entries> ReferenceRewriter::Endings(const Task& task) const {
  std::vector<std::string_view> hubs;
  for (const uint32_t module : task.in_memory) {
    if (task.matching == Matching::kSegments && IsAtOrBelow(in_memory_.names()[module], task.path)) continue;
    for (const uint32_t hub : to_hub_[module]) hubs.push_back(hub_.names()[hub]);
  }
  size_t deepest = 0;
  for (const std::string_view hub : hubs) deepest = std::max(deepest, std::min<size_t>(Depth(hub), 64));
  std::vector<Entries> candidates;
  for (size_t depth = Depth(task.entry); depth <= deepest; ++depth) {
    std::unordered_set<std::string> seen;
    Entries candidate = task.path.empty() ? Entries() : RenamePath(task);
    for (const std::string_view hub : hubs) {
      std::string ending = LastComponents(hub, depth);
      if (seen.insert(ending).second) candidate.push_back(std::move(ending));
    }
    candidates.push_back(std::move(candidate));
  }
  return candidates;
}

// Fewer entries than modules, where what is wanted goes by numbers or is all of some sub-trees.
std::vector<ReferenceRewriter::Entries> ReferenceRewriter::Patterns(const Task& task) {
  if (task.matching == Matching::kEnd || (task.matching == Matching::kSegments && !task.path.empty())) return {};
  const std::string prefix(IsRegex(task.entry) ? kRegexPrefix : std::string_view());
  const Subtrees subtrees = SubtreesFor(hub_.names(), task.wanted);
  std::vector<Entries> candidates;
  if (task.matching == Matching::kExact) {
    candidates.push_back(subtrees.above);
    candidates.back().insert(candidates.back().end(), subtrees.alone.begin(), subtrees.alone.end());
    return candidates;
  }
  if (!alike_) alike_.emplace(hub_.names());
  const std::vector<NamePattern> patterns = alike_->PatternsFor(task.wanted);
  Entries numbers;
  if (IsExpression(task.matching, task.entry)) {
    Entries below;
    for (const std::string& path : subtrees.above)
      below.push_back(fmt::format("{}^{}\\..*", prefix, EscapedName(path)));
    for (const std::string& name : subtrees.alone) below.push_back(fmt::format("{}^{}$", prefix, EscapedName(name)));
    candidates.push_back(std::move(below));
    for (const NamePattern& pattern : patterns) numbers.push_back(prefix + pattern.Regex());
  } else {
    for (const std::string_view behind : {task.behind.empty() ? "*" : task.behind, std::string_view(".*")}) {
      Entries below = subtrees.alone;
      for (const std::string& path : subtrees.above) below.push_back(path + std::string(behind));
      candidates.push_back(std::move(below));
    }
    for (const NamePattern& pattern : patterns) {
      if (numbers.size() + pattern.Combinations() > task.wanted.size()) return candidates;
      for (std::string& glob : pattern.Globs()) numbers.push_back(std::move(glob));
    }
  }
  // Whole sub-trees say most; a name says less than a pattern does.
  candidates.insert(subtrees.alone.empty() ? candidates.end() : candidates.begin(), std::move(numbers));
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Entries& a, const Entries& b) { return a.size() < b.size(); });
  return candidates;
}

std::vector<ReferenceRewriter::Entries> ReferenceRewriter::Candidates(Attempt attempt, const Task& task) {
  const auto with_behind = [&](Entries paths) {
    for (std::string& path : paths) path += task.behind;
    return std::vector<Entries>{std::move(paths)};
  };
  switch (attempt) {
    case Attempt::kRenamed:
      return task.path.empty() ? std::vector<Entries>() : with_behind(RenamePath(task));
    case Attempt::kByRule:
      return task.path.empty() ? std::vector<Entries>() : with_behind({rename_(std::string(task.path))});
    case Attempt::kEndings:
      return task.matching == Matching::kEnd || (task.matching == Matching::kSegments && !task.path.empty())
                 ? Endings(task)
                 : std::vector<Entries>();
    case Attempt::kAsItIs:
      return {{std::string(task.entry)}};
    case Attempt::kPatterns:
      return Patterns(task);
  }
  return {};
}

Result<std::vector<uint32_t>> ReferenceRewriter::HubMatches(const Entries& entries, const Task& task) const {
  std::vector<uint32_t> all;
  for (const std::string& entry : entries) {
    const auto hits = hub_.Matches(entry, MatchingOf(entry, task.syntax), task.budget);
    if (!hits) return hits.errors();
    all.insert(all.end(), hits->begin(), hits->end());
  }
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

// An entry for each module.
ReferenceRewriter::Entries ReferenceRewriter::ExactEntries(const Task& task) const {
  Entries entries;
  for (const uint32_t module : task.wanted) {
    const std::string& name = hub_.names()[module];
    const std::string expression = fmt::format("^{}$", EscapedName(name));
    if (task.syntax == EntrySyntax::kSigned) {
      entries.push_back(expression);
      continue;
    }
    // A name covers what lies below it; where that is not wanted, a regular expression keeps it exact.
    const auto next = std::lower_bound(hub_.names().begin(), hub_.names().end(), name + ".");
    bool exact = true;
    for (auto it = next; exact && it != hub_.names().end() && IsAtOrBelow(*it, name); ++it) {
      exact =
          std::binary_search(task.wanted.begin(), task.wanted.end(), static_cast<uint32_t>(it - hub_.names().begin()));
    }
    entries.push_back(exact || task.syntax != EntrySyntax::kNames ? name : std::string(kRegexPrefix) + expression);
  }
  return entries;
}

// An entry that already speaks of the hub's modules stays. Others get the name that a module of theirs would have, as
// long as that is not another module's.
Result<ReferenceRewriter::Entries> ReferenceRewriter::RewriteDead(const Task& task) {
  const Entries as_it_is = {std::string(task.entry)};
  if (task.path.empty() || (task.syntax == EntrySyntax::kNames && IsClassName(task.entry))) return as_it_is;
  auto hits = HubMatches(as_it_is, task);
  if (!hits) return hits.errors();
  if (!hits->empty()) return as_it_is;
  // Last segments alone are no path.
  const std::string_view root = task.path.substr(0, task.path.find('.'));
  const auto rooted = std::lower_bound(in_memory_.names().begin(), in_memory_.names().end(), root);
  const bool known = rooted != in_memory_.names().end() && IsAtOrBelow(*rooted, root);
  if (task.matching == Matching::kSegments && !known) return as_it_is;
  const Entries renamed = {rename_(std::string(task.path)) + std::string(task.behind)};
  hits = HubMatches(renamed, task);
  if (!hits) return hits.errors();
  return hits->empty() ? renamed : as_it_is;
}

Result<ReferenceRewriter::Entries> ReferenceRewriter::Rewrite(const std::string& text, EntrySyntax syntax,
                                                              MatchBudget* budget) {
  const std::string_view sign = SignOf(text, syntax);
  Task task{std::string_view(text).substr(sign.size()), syntax, budget};
  task.FindPath();
  const auto with_sign = [&](Entries entries) {
    for (std::string& entry : entries) entry.insert(0, sign);
    return entries;
  };
  auto in_memory = in_memory_.Matches(task.entry, task.matching, budget);
  if (!in_memory) return in_memory.errors();
  if (in_memory->empty()) {
    auto dead = RewriteDead(task);
    return dead ? Result<Entries>(with_sign(std::move(*dead))) : dead;
  }
  task.in_memory = std::move(*in_memory);
  task.wanted = HubOf(task.in_memory);
  for (const Attempt attempt :
       {Attempt::kRenamed, Attempt::kByRule, Attempt::kEndings, Attempt::kAsItIs, Attempt::kPatterns}) {
    for (Entries& candidate : Candidates(attempt, task)) {
      if (candidate.empty()) continue;
      // Expressions that are made for the modules match these alone; holding them against all again would take more
      // than all else.
      if (attempt == Attempt::kPatterns && IsExpression(task.matching, task.entry))
        return with_sign(std::move(candidate));
      const auto hits = HubMatches(candidate, task);
      if (!hits) return hits.errors();
      if (*hits == task.wanted) return with_sign(std::move(candidate));
    }
  }
  return with_sign(ExactEntries(task));
}

namespace {

// Rewrites the references of one file.
class FileRewriter {
 public:
  FileRewriter(ReferenceRewriter* rewriter, MatchBudget* budget) : rewriter_(*rewriter), budget_(budget) {}

  Status Run(Json* quantization) {
    if (auto s = Fields(quantization); !s) return s;
    // Quark's.
    if (auto it = quantization->find("export"); it != quantization->end() && it->is_object()) {
      if (auto s = Fields(&*it); !s) return s;
    }
    const auto groups = quantization->find("config_groups");
    if (groups == quantization->end() || !groups->is_object()) return {};
    for (auto& [name, group] : groups->items()) {
      if (!group.is_object()) continue;
      auto targets = group.find("targets");
      if (targets == group.end()) continue;
      if (auto s = List(EntrySyntax::kNames, &*targets); !s) return s;
    }
    return {};
  }

 private:
  Status Fields(Json* object) {
    for (const ModuleField& field : kModuleFields) {
      const auto it = object->find(std::string(field.key));
      if (it == object->end()) continue;
      auto status = field.form == ModuleField::Form::kKeys     ? Keys(field.syntax, &*it)
                    : field.form == ModuleField::Form::kCommas ? Commas(field.syntax, &*it)
                                                               : List(field.syntax, &*it);
      if (!status) return status;
    }
    return {};
  }

  Status List(EntrySyntax syntax, Json* value) {
    if (value->is_string()) return One(syntax, value);
    if (!value->is_array()) return {};
    Json out = Json::array();
    std::unordered_set<std::string> done;
    std::unordered_set<std::string> written;
    for (Json& item : *value) {
      if (!item.is_string()) {
        if (auto s = List(syntax, &item); !s) return s;
        out.push_back(std::move(item));
        continue;
      }
      if (!done.insert(item.get<std::string>()).second) continue;
      auto entries = rewriter_.Rewrite(item.get<std::string>(), syntax, budget_);
      if (!entries) return entries.errors();
      for (std::string& entry : *entries) {
        if (written.insert(entry).second) out.push_back(std::move(entry));
      }
    }
    *value = std::move(out);
    return {};
  }

  // An entry where a list may stand: it becomes one where that takes several.
  Status One(EntrySyntax syntax, Json* value) {
    auto entries = rewriter_.Rewrite(value->get<std::string>(), syntax, budget_);
    if (!entries) return entries.errors();
    *value = entries->size() == 1 ? Json(entries->front()) : Json(*entries);
    return {};
  }

  Status Commas(EntrySyntax syntax, Json* value) {
    if (value->is_array()) {
      for (Json& item : *value) {
        if (auto s = Commas(syntax, &item); !s) return s;
      }
    }
    if (!value->is_string()) return {};
    const std::string text = value->get<std::string>();
    std::string out;
    for (size_t begin = 0; begin <= text.size();) {
      const size_t comma = std::min(text.find(',', begin), text.size());
      auto entries = rewriter_.Rewrite(text.substr(begin, comma - begin), syntax, budget_);
      if (!entries) return entries.errors();
      for (const std::string& entry : *entries) out += (out.empty() ? "" : ",") + entry;
      begin = comma + 1;
    }
    *value = out;
    return {};
  }

  Status Keys(EntrySyntax syntax, Json* object) {
    if (!object->is_object()) return {};
    JsonObjectBuilder out;
    for (const auto& [key, value] : object->items()) {
      auto entries = rewriter_.Rewrite(key, syntax, budget_);
      if (!entries) return entries.errors();
      for (const std::string& entry : *entries) out.Set(entry, value);
    }
    *object = out.Take();
    return {};
  }

  ReferenceRewriter& rewriter_;
  MatchBudget* budget_;
};

}  // namespace

Result<std::string> RewriteReferences(const std::string& text, std::string_view file, ReferenceRewriter* rewriter,
                                      MatchBudget* budget) {
  auto json = ParseJson(text, file, ErrorKind::kInvalidConfig);
  if (!json) return json.errors();
  if (!json->is_object()) return Error{ErrorKind::kInvalidConfig, "not a JSON object", std::string(file), {}, {}};
  const Json before = *json;
  FileRewriter rewrite(rewriter, budget);
  for (Json* quantization : FindQuantizations(&*json)) {
    if (auto status = rewrite.Run(quantization); !status) {
      for (Error& error : status.errors()) error.file = file;
      return status.errors();
    }
  }
  if (*json == before) return text;
  return DumpJson(*json, StyleOf(text));
}

}  // namespace quantport
