#include "engine/facts.h"

#include <fmt/format.h>

#include "base/json.h"
#include "base/text.h"

namespace quantport {
namespace {

// Reads members that must be there and of their type; the first that is not is the error.
class Reader {
 public:
  explicit Reader(std::string_view file) : file_(file) {}

  Errors Take() { return std::move(errors_); }
  bool ok() const { return errors_.empty(); }

  const Json& Member(const Json& object, const char* key, Json::value_t type) {
    static const Json kEmptyObject = Json::object();
    static const Json kEmptyArray = Json::array();
    if (object.is_object()) {
      const auto it = object.find(key);
      if (it != object.end() && it->type() == type) return *it;
    }
    Fail(fmt::format("\"{}\" is missing or of another type", key));
    return type == Json::value_t::array ? kEmptyArray : kEmptyObject;
  }

  std::string Text(const Json& object, const char* key, bool required = true) {
    if (object.is_object()) {
      const auto it = object.find(key);
      if (it != object.end() && it->is_string()) return it->get<std::string>();
    }
    if (required) Fail(fmt::format("\"{}\" is no text", key));
    return {};
  }

  std::vector<std::string> Texts(const Json& list) {
    std::vector<std::string> texts;
    if (!list.is_array()) Fail("a list of names is none");
    for (const Json& item : list) {
      if (item.is_string()) {
        texts.push_back(item.get<std::string>());
      } else {
        Fail("a list of names holds something else");
      }
    }
    return texts;
  }

  NameMapper::Pairs Pairs(const Json& mapper, const char* key) {
    NameMapper::Pairs pairs;
    const auto it = mapper.find(key);
    if (it == mapper.end()) return pairs;
    for (const auto& [from, to] : it->items()) {
      if (to.is_string()) pairs.emplace_back(from, to.get<std::string>());
    }
    return pairs;
  }

  void Fail(std::string message) {
    if (errors_.empty())
      errors_.push_back({ErrorKind::kInvalidMapping, "no file of engine facts: " + std::move(message), file_, {}, {}});
  }

 private:
  std::string file_;
  Errors errors_;
};

std::optional<SizeRule> ParseSize(std::string_view text) {
  if (text == "1") return SizeRule{};
  const size_t slash = text.find('/');
  const std::string_view name = text.substr(0, slash);
  SizeRule rule;
  if (name == "out") {
    rule.of = SizeRule::Of::kOutputs;
  } else if (name == "in") {
    rule.of = SizeRule::Of::kInputs;
  } else {
    return std::nullopt;
  }
  if (slash == std::string_view::npos) return rule;
  const std::string_view divisor = text.substr(slash + 1);
  if (!IsDigits(divisor) || divisor.size() > 6) return std::nullopt;
  rule.divisor = std::stoull(std::string(divisor));
  if (rule.divisor == 0) return std::nullopt;
  return rule;
}

MethodFacts ReadMethod(const Json& json, Reader* reader) {
  MethodFacts method;
  method.refused = reader->Text(json, "refused", false);
  if (!method.refused.empty()) return method;
  for (const auto& [leaf, form] : json.items()) {
    const auto dtype = form.is_array() && form.size() >= 2 && form[0].is_string() && form[1].is_array()
                           ? ParseDType(form[0].get<std::string>())
                           : std::nullopt;
    if (!dtype) {
      reader->Fail(fmt::format("the form of \"{}\" is not [dtype, shape] or [dtype, shape, \"optional\"]", leaf));
      return method;
    }
    LeafFacts facts{leaf, *dtype, {}, form.size() > 2};
    for (const std::string& size : reader->Texts(form[1])) {
      const auto rule = ParseSize(size);
      if (!rule) reader->Fail(fmt::format("\"{}\" is no size", size));
      facts.shape.push_back(rule.value_or(SizeRule{}));
    }
    method.leaves.push_back(std::move(facts));
  }
  return method;
}

std::optional<LayerKind> KindOf(std::string_view name) {
  if (name == "linear") return LayerKind::kLinear;
  if (name == "experts") return LayerKind::kExperts;
  return std::nullopt;  // attention and embeddings hold no quantized weights
}

ArchitectureFacts ReadArchitecture(const Json& json, Reader* reader) {
  ArchitectureFacts facts;
  facts.refused = reader->Text(json, "refused", false);
  if (!facts.refused.empty()) return facts;
  facts.class_name = reader->Text(json, "class");
  const auto mapper = json.find("mapper");
  facts.has_mapper = mapper != json.end() && mapper->is_object();
  if (facts.has_mapper)
    facts.mapper = {reader->Pairs(*mapper, "substr"), reader->Pairs(*mapper, "prefix"),
                    reader->Pairs(*mapper, "suffix")};
  for (const auto& [fused, parts] : reader->Member(json, "packed", Json::value_t::object).items())
    facts.packed[fused] = reader->Texts(parts);
  facts.raises_unknown = reader->Text(json, "unknown") == "raises";
  facts.reads_cache_scales = reader->Text(json, "cache_scales", false) != "unread";
  for (const Json& layer : reader->Member(json, "layers", Json::value_t::array)) {
    const auto kind = KindOf(reader->Text(layer, "kind"));
    if (!kind) continue;
    LayerFacts& added = facts.layers.emplace_back(LayerFacts{reader->Text(layer, "prefix"), *kind, {}});
    for (const Json& parts : reader->Member(layer, "parts", Json::value_t::array))
      added.parts.push_back(reader->Texts(parts));
  }
  facts.plain = reader->Texts(reader->Member(json, "plain", Json::value_t::array));
  facts.skipped = reader->Texts(reader->Member(json, "skipped", Json::value_t::array));
  return facts;
}

}  // namespace

NameTemplate TemplateOf(std::string_view name) {
  NameTemplate made;
  for (const std::string_view part : SplitDots(name)) {
    if (!made.text.empty()) made.text += '.';
    if (IsDigits(part)) {
      made.numbers.emplace_back(part);
      made.text += '*';
    } else {
      made.text += part;
    }
  }
  return made;
}

std::string FillTemplate(std::string_view text, const std::vector<std::string>& numbers) {
  std::string filled;
  size_t next = 0;
  for (const char c : text) {
    if (c == '*' && next < numbers.size()) {
      filled += numbers[next++];
    } else {
      filled += c;
    }
  }
  return filled;
}

Result<EngineFacts> ParseEngineFacts(std::string_view text, std::string_view file) {
  auto json = ParseJson(text, file, ErrorKind::kInvalidMapping);
  if (!json) return json.errors();
  Reader reader(file);
  EngineFacts facts;
  facts.engine = reader.Text(*json, "engine");
  facts.version = reader.Text(*json, "version");
  facts.held = json->is_object() && json->value("held", Json(false)) == Json(true);
  for (const auto& [algorithm, kinds] : reader.Member(*json, "methods", Json::value_t::object).items()) {
    facts.methods[algorithm];
    for (const auto& [name, method] : kinds.items()) {
      if (const auto kind = KindOf(name)) facts.methods[algorithm][*kind] = ReadMethod(method, &reader);
    }
  }
  for (const auto& [name, architecture] : reader.Member(*json, "architectures", Json::value_t::object).items())
    facts.architectures[name] = ReadArchitecture(architecture, &reader);
  if (!reader.ok()) return reader.Take();
  return facts;
}

}  // namespace quantport
