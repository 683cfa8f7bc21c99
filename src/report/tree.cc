#include "report/tree.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <unordered_map>

#include "base/text.h"

namespace quantport {
namespace {

constexpr size_t kMaxLines = 200;
// Names are strangers' text: what lies deeper is taken as one part, so that no name makes the tree deep.
constexpr size_t kMaxParts = 48;
constexpr size_t kMinWidth = 60;

struct Node {
  std::string_view part;           // of the name, between dots
  std::vector<uint32_t> children;  // in the order of the modules
  std::vector<uint32_t> modules;   // stored under this very name
  uint32_t signature = 0;          // equal for subtrees that are alike
  uint64_t bytes = 0;              // of the subtree, as is what follows
  uint64_t weights = 0;
  std::unordered_map<std::string_view, uint64_t> formats;  // -> bytes
};

std::string_view FormatOf(const InspectModule& module) {
  return module.layout == "plain" ? DTypeName(module.dtype) : std::string_view(module.layout);
}

// What two modules must have in common to be alike. A tensor that is itself called by a number keeps that to itself.
std::string ModuleSignature(const InspectModule& module, std::string_view part) {
  std::string text = fmt::format("{} {} [{}]", module.layout, DTypeName(module.dtype), fmt::join(module.shape, ","));
  for (const std::string& tensor : module.tensors) {
    const bool own_name = tensor.starts_with(part) && tensor.substr(part.size()).starts_with(' ');
    text += "|";
    text += own_name ? tensor.substr(part.size()) : tensor;
  }
  return text;
}

class Forest {
 public:
  explicit Forest(const std::vector<InspectModule>& modules) : modules_(modules), nodes_(1) {
    for (uint32_t i = 0; i < modules.size(); ++i) AddModule(i);
    // Children come after their parents, so that going backwards meets every subtree complete.
    for (size_t i = nodes_.size(); i-- > 0;) Summarize(&nodes_[i]);
  }

  const Node& operator[](uint32_t node) const { return nodes_[node]; }

 private:
  void AddModule(uint32_t number) {
    const std::string_view name = modules_[number].name;
    uint32_t node = 0;
    size_t begin = 0;
    for (size_t part = 1; begin <= name.size(); ++part) {
      const size_t end = part == kMaxParts ? name.size() : std::min(name.find('.', begin), name.size());
      node = Child(node, name.substr(0, end), name.substr(begin, end - begin));
      begin = end + 1;
    }
    nodes_[node].modules.push_back(number);
  }

  uint32_t Child(uint32_t parent, std::string_view path, std::string_view part) {
    const auto [it, fresh] = by_path_.emplace(path, static_cast<uint32_t>(nodes_.size()));
    if (fresh) {
      nodes_.push_back({part, {}, {}, 0, 0, 0, {}});
      nodes_[parent].children.push_back(it->second);
    }
    return it->second;
  }

  void Summarize(Node* node) {
    std::string signature;
    for (const uint32_t number : node->modules) {
      const InspectModule& module = modules_[number];
      node->bytes += module.bytes;
      node->weights += 1;
      node->formats[FormatOf(module)] += module.bytes;
      signature += ModuleSignature(module, node->part) + "\n";
    }
    for (const uint32_t number : node->children) {
      const Node& child = nodes_[number];
      node->bytes += child.bytes;
      node->weights += child.weights;
      for (const auto& [format, bytes] : child.formats) node->formats[format] += bytes;
      signature += fmt::format("{}={}\n", child.part, child.signature);
    }
    const auto next = static_cast<uint32_t>(signatures_.size());
    node->signature = signatures_.emplace(std::move(signature), next).first->second;
  }

  const std::vector<InspectModule>& modules_;
  std::vector<Node> nodes_;
  std::unordered_map<std::string_view, uint32_t> by_path_;
  std::unordered_map<std::string, uint32_t> signatures_;
};

// Siblings that are alike, as one line: what stands below it stands for all of them, so that bytes add up.
struct Fold {
  uint32_t node = 0;   // the first of them
  uint64_t count = 1;  // of them, in all the folds that they lie in
  std::string label;
  std::vector<uint64_t> numbers;  // empty for a name that is no number
};

std::optional<uint64_t> ParseNumber(std::string_view part) {
  if (!IsDigits(part) || (part.size() > 1 && part[0] == '0')) return std::nullopt;
  uint64_t number = 0;
  if (std::from_chars(part.data(), part.data() + part.size(), number).ec != std::errc()) return std::nullopt;
  return number;
}

// {0, 1, 2, 5} -> "0-2,5".
std::string RangesText(const std::vector<uint64_t>& numbers) {
  std::string out;
  for (size_t begin = 0; begin < numbers.size();) {
    size_t end = begin + 1;
    while (end < numbers.size() && numbers[end] == numbers[end - 1] + 1) ++end;
    out += fmt::format("{}{}", out.empty() ? "" : ",", numbers[begin]);
    if (end - begin > 1) out += fmt::format("-{}", numbers[end - 1]);
    begin = end;
  }
  return out;
}

std::vector<Fold> FoldChildren(const Forest& forest, const Node& node) {
  std::vector<Fold> folds;
  std::unordered_map<uint32_t, size_t> numbered;  // signature -> fold
  for (const uint32_t number : node.children) {
    const Node& child = forest[number];
    const auto value = ParseNumber(child.part);
    if (!value) {
      folds.push_back({number, 1, Printable(child.part), {}});
      continue;
    }
    const auto [it, fresh] = numbered.emplace(child.signature, folds.size());
    if (fresh) folds.push_back({number, 0, {}, {}});
    folds[it->second].count += 1;
    folds[it->second].numbers.push_back(*value);
  }
  for (Fold& fold : folds) {
    if (!fold.numbers.empty()) fold.label = RangesText(fold.numbers);
  }
  return folds;
}

struct Row {
  size_t level = 0;
  std::string name;  // indented
  std::string format;
  std::string bytes;
  std::string detail;
};

std::string FormatsText(const Node& node) {
  std::vector<std::pair<std::string_view, uint64_t>> formats(node.formats.begin(), node.formats.end());
  std::sort(formats.begin(), formats.end(), [](const auto& x, const auto& y) {
    return x.second != y.second ? x.second > y.second : x.first < y.first;
  });
  std::string out;
  for (const auto& [format, bytes] : formats) out += fmt::format("{}{}", out.empty() ? "" : "+", format);
  return out;
}

class Rows {
 public:
  Rows(const std::vector<InspectModule>& modules, const Forest& forest) : modules_(modules), forest_(forest) {
    for (Fold& fold : FoldChildren(forest, forest[0])) Add(std::move(fold), 0);
  }

  std::vector<Row> Take() { return std::move(rows_); }

 private:
  void Add(Fold fold, size_t level) {
    std::vector<Fold> children = FoldChildren(forest_, forest_[fold.node]);
    while (children.size() == 1 && forest_[fold.node].modules.empty()) {
      fold = {children[0].node, fold.count * children[0].count, fold.label + "." + children[0].label, {}};
      children = FoldChildren(forest_, forest_[fold.node]);
    }
    const Node& node = forest_[fold.node];
    rows_.push_back({level, std::string(2 * level, ' ') + fold.label, FormatsText(node),
                     HumanBytes(node.bytes * fold.count), Detail(node, fold.count)});
    if (IsWeightWithParts(node)) return;
    for (Fold& child : children) {
      // A number says little by itself.
      if (!child.numbers.empty()) child.label = Printable(node.part) + "." + child.label;
      child.count *= fold.count;
      Add(std::move(child), level + 1);
    }
  }

  // A linear whose bias and the like would else take a line each.
  bool IsWeightWithParts(const Node& node) const {
    return !node.modules.empty() && std::all_of(node.children.begin(), node.children.end(),
                                                [&](uint32_t child) { return forest_[child].children.empty(); });
  }

  std::string Detail(const Node& node, uint64_t count) const {
    if (node.modules.size() != 1) return fmt::format("{} weights", node.weights * count);
    std::string text = fmt::format("[{}]", fmt::join(modules_[node.modules[0]].shape, ", "));
    if (count > 1) text = fmt::format("{} x {}", count, text);
    if (!IsWeightWithParts(node)) return text;
    for (const uint32_t child : node.children) text += fmt::format(" +{}", Printable(forest_[child].part));
    return text;
  }

  const std::vector<InspectModule>& modules_;
  const Forest& forest_;
  std::vector<Row> rows_;
};

// The most levels that fit in kMaxLines, but one at least.
size_t FittingDepth(const std::vector<Row>& rows) {
  std::vector<size_t> lines(kMaxParts + 1, 0);
  for (const Row& row : rows) ++lines[row.level];
  size_t depth = 1;
  for (size_t total = lines[0]; depth < lines.size() && total + lines[depth] <= kMaxLines; ++depth)
    total += lines[depth];
  return depth;
}

size_t Widest(const std::vector<Row>& rows, std::string Row::*column, size_t most) {
  size_t widest = 0;
  // Bytes are as many as characters or more, which is near enough here.
  for (const Row& row : rows) widest = std::max(widest, (row.*column).size());
  return std::min(widest, most);
}

}  // namespace

std::string ModuleTree(const std::vector<InspectModule>& modules, const InspectTextOptions& options) {
  const Forest forest(modules);
  std::vector<Row> rows = Rows(modules, forest).Take();
  const size_t all = rows.size();
  const size_t depth = options.depth > 0 ? static_cast<size_t>(options.depth) : FittingDepth(rows);
  std::erase_if(rows, [&](const Row& row) { return row.level >= depth; });
  if (options.depth == 0 && rows.size() > kMaxLines) rows.resize(kMaxLines);

  const size_t width = std::max(static_cast<size_t>(std::max(options.width, 0)), kMinWidth);
  constexpr size_t kBytesWidth = 9;
  constexpr size_t kGaps = 6;
  const size_t format_width = Widest(rows, &Row::format, width / 5);
  const size_t detail_width = Widest(rows, &Row::detail, width / 4);
  const size_t name_width = Widest(rows, &Row::name, width - format_width - detail_width - kBytesWidth - kGaps);
  std::string out;
  for (const Row& row : rows) {
    out += fmt::format("{:<{}}  {:<{}}  {:>{}}  {}\n", ShortenMiddle(row.name, name_width), name_width,
                       ShortenMiddle(row.format, format_width), format_width, row.bytes, kBytesWidth,
                       ShortenMiddle(row.detail, detail_width));
  }
  if (rows.size() < all)
    out += fmt::format("{} lines more (--depth N shows more levels, --modules every module)\n", all - rows.size());
  return out;
}

}  // namespace quantport
