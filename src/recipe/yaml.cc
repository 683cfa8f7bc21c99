// The events of yaml-cpp, made into values. Its own node tree is not used: it keeps no bounds on aliases.
#include <fmt/format.h>
#include <yaml-cpp/anchor.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <istream>
#include <map>
#include <optional>
#include <streambuf>

#include "base/text.h"
#include "recipe/scalar.h"
#include "recipe/value.h"

namespace quantport {
namespace {

constexpr size_t kMaxText = size_t{1} << 20;
constexpr size_t kMaxDepth = 64;
constexpr size_t kMaxValues = 100'000;
constexpr size_t kMaxKeys = 1000;  // of one mapping, since keys are looked for one by one

class Builder : public YAML::EventHandler {
 public:
  explicit Builder(std::shared_ptr<const std::string> file) : file_(std::move(file)) {}

  std::vector<YamlValue> documents;

  void OnDocumentStart(const YAML::Mark& mark) override {
    anchors_.clear();
    open_.clear();
    documents.push_back(At(mark));
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { Add(At(mark), anchor); }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto it = anchors_.find(anchor);
    // An anchor is known once its value is complete, so that a value can't contain itself.
    if (it == anchors_.end()) Fail(At(mark), "an alias to a value that is not complete");
    Count(it->second.Size(), mark);
    YamlValue copy = it->second;
    if (open_.size() + Depth(copy) > kMaxDepth) FailDepth(mark);
    Add(std::move(copy), 0);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& text) override {
    YamlValue value = At(mark);
    if (!ResolveScalar(text, tag, &value)) {
      Fail(value, fmt::format("the tag {} is not one of YAML's own", Printable(tag)));
    }
    Add(std::move(value), anchor);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    Open(mark, YamlValue::Kind::kList, anchor);
  }
  void OnSequenceEnd() override { Close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    Open(mark, YamlValue::Kind::kMap, anchor);
  }
  void OnMapEnd() override { Close(); }

 private:
  struct Frame {
    YamlValue value;
    YAML::anchor_t anchor = 0;
    std::vector<YamlValue> parts;  // keys and values in turn, for a map
  };

  YamlValue At(const YAML::Mark& mark) const {
    YamlValue value;
    value.file = file_;
    value.line = mark.line + 1;
    return value;
  }

  [[noreturn]] void FailDepth(const YAML::Mark& mark) const {
    Fail(At(mark), fmt::format("nested deeper than {} levels", kMaxDepth));
  }

  void Count(size_t values, const YAML::Mark& mark) {
    count_ += values;
    if (count_ > kMaxValues) Fail(At(mark), fmt::format("more than {} values, with aliases written out", kMaxValues));
  }

  static size_t Depth(const YamlValue& value) {
    size_t depth = 0;
    for (const YamlValue& item : value.items) depth = std::max(depth, Depth(item));
    return depth + 1;
  }

  void Open(const YAML::Mark& mark, YamlValue::Kind kind, YAML::anchor_t anchor) {
    if (open_.size() >= kMaxDepth) FailDepth(mark);
    Frame frame{At(mark), anchor, {}};
    frame.value.kind = kind;
    open_.push_back(std::move(frame));
  }

  void Close() {
    Frame frame = std::move(open_.back());
    open_.pop_back();
    if (frame.value.IsMap()) {
      FillMap(&frame);
    } else {
      frame.value.items = std::move(frame.parts);
    }
    Add(std::move(frame.value), frame.anchor);
  }

  void Add(YamlValue value, YAML::anchor_t anchor) {
    if (++count_ > kMaxValues) Fail(value, fmt::format("more than {} values, with aliases written out", kMaxValues));
    if (anchor != 0) anchors_[anchor] = value;
    if (open_.empty()) {
      documents.back() = std::move(value);
    } else {
      open_.back().parts.push_back(std::move(value));
    }
  }

  // The last of equal keys counts, as in Python; what "<<" merges comes before and is overridden.
  static void FillMap(Frame* frame) {
    YamlValue& map = frame->value;
    std::map<std::string, size_t> places;
    const auto set = [&](YamlValue key, YamlValue value) {
      if (key.IsList() || key.IsMap()) Fail(key, "a key that is no scalar");
      const auto [it, fresh] =
          places.emplace(fmt::format("{}:{}", static_cast<int>(key.kind), Described(key) + key.text), map.keys.size());
      if (!fresh) {
        map.items[it->second] = std::move(value);
        return;
      }
      if (map.keys.size() >= kMaxKeys) Fail(key, fmt::format("a mapping of more than {} keys", kMaxKeys));
      map.keys.push_back(std::move(key));
      map.items.push_back(std::move(value));
    };
    std::vector<YamlValue>& parts = frame->parts;
    for (size_t i = 0; i + 1 < parts.size(); i += 2) {
      if (IsMergeKey(parts[i])) Merge(parts[i + 1], set);
    }
    for (size_t i = 0; i + 1 < parts.size(); i += 2) {
      if (!IsMergeKey(parts[i])) set(std::move(parts[i]), std::move(parts[i + 1]));
    }
  }

  static bool IsMergeKey(const YamlValue& key) { return key.IsString() && key.text == "<<"; }

  template <typename Set>
  static void Merge(const YamlValue& from, const Set& set) {
    if (from.IsMap()) {
      for (size_t i = 0; i < from.keys.size(); ++i) set(from.keys[i], from.items[i]);
    } else if (from.IsList()) {
      // The first of a list of mappings wins.
      for (auto it = from.items.rbegin(); it != from.items.rend(); ++it) {
        if (!it->IsMap()) Fail(*it, "what << merges is no mapping");
        Merge(*it, set);
      }
    } else {
      Fail(from, "what << merges is no mapping");
    }
  }

  std::shared_ptr<const std::string> file_;
  std::map<YAML::anchor_t, YamlValue> anchors_;
  std::vector<Frame> open_;
  size_t count_ = 0;
};

struct ViewBuffer : std::streambuf {
  explicit ViewBuffer(std::string_view text) {
    auto* begin = const_cast<char*>(text.data());  // a get area is never written to
    setg(begin, begin, begin + text.size());
  }
};

Error Invalid(const std::string& file, int line, std::string message) {
  return {ErrorKind::kInvalidRecipe, std::move(message), fmt::format("{}:{}", file, line), {}, {}};
}

}  // namespace

Result<std::vector<YamlValue>> ParseYaml(std::string_view text, const std::string& file) {
  if (text.size() > kMaxText) return Invalid(file, 1, fmt::format("larger than {} bytes", kMaxText));
  ViewBuffer buffer(text);
  std::istream stream(&buffer);
  Builder builder(std::make_shared<const std::string>(file));
  try {
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const RecipeProblem& problem) {
    return problem.error;
  } catch (const YAML::Exception& exception) {
    return Invalid(file, exception.mark.line + 1, "not YAML: " + Printable(exception.msg));
  } catch (const std::exception& exception) {
    return Invalid(file, 1, "not YAML: " + Printable(exception.what()));
  }
  return std::move(builder.documents);
}

}  // namespace quantport
