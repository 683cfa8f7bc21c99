#include "recipe/imports.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "base/text.h"
#include "recipe/attributes.h"

namespace quantport {
namespace {

constexpr size_t kMaxFiles = 256;
constexpr size_t kMaxImportDepth = 32;
constexpr size_t kMaxValues = 1'000'000;
constexpr std::string_view kImport = "$import";
constexpr std::string_view kSchemaComment = "modelopt-schema:";

std::string_view Trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

YamlValue Place(const RecipeFile& file, int line = 0) {
  YamlValue at;
  at.file = std::make_shared<const std::string>(file.path);
  at.line = line;
  return at;
}

// What stands in the comments before a file's content.
struct Preamble {
  std::optional<std::string> schema;
  int schema_line = 0;
  std::string description;
};

Preamble ReadPreamble(const RecipeFile& file) {
  Preamble preamble;
  std::string paragraph;
  bool ended = false;  // the paragraph: the next comment begins another one
  int line_number = 0;
  std::string_view rest = file.text;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = Trimmed(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
    ++line_number;
    if (!line.empty() && line[0] != '#') break;
    const std::string_view comment = line.empty() ? line : Trimmed(line.substr(1));
    if (comment.starts_with(kSchemaComment)) {
      const std::string_view name = Trimmed(comment.substr(kSchemaComment.size()));
      if (name.empty() || name.find_first_of(" \t") != std::string_view::npos) continue;
      if (preamble.schema) Fail(Place(file, line_number), "a second modelopt-schema comment");
      preamble.schema = std::string(name);
      preamble.schema_line = line_number;
      preamble.description = paragraph;
    } else if (comment.empty()) {
      ended = true;
    } else {
      if (std::exchange(ended, false)) paragraph.clear();
      if (!paragraph.empty()) paragraph += ' ';
      paragraph += comment;
    }
  }
  return preamble;
}

// The strings of num_bits and scale_bits, wherever they stand, as pairs of bits: "e4m3" is [4, 3].
void ReadBitStrings(YamlValue* value) {
  for (size_t i = 0; i < value->items.size(); ++i) {
    YamlValue& item = value->items[i];
    const bool bits = value->IsMap() && value->keys[i].IsString() &&
                      (value->keys[i].text == "num_bits" || value->keys[i].text == "scale_bits");
    if (bits && item.IsString()) {
      if (const auto pair = ParseBits(item.text)) {
        YamlValue number = item;
        number.text.clear();
        number.kind = YamlValue::Kind::kInt;
        item.kind = YamlValue::Kind::kList;
        item.text.clear();
        for (const int part : {pair->first, pair->second}) {
          number.integer = part;
          item.items.push_back(number);
        }
      }
    } else {
      ReadBitStrings(&item);
    }
  }
}

}  // namespace

void ImportResolver::Count(const YamlValue& value) {
  values_ += value.Size();
  if (values_ > kMaxValues) Fail(value, fmt::format("more than {} values with all imports written out", kMaxValues));
}

ResolvedFile ImportResolver::Resolve(const RecipeFile& file, const Schema& schema) {
  const Preamble preamble = ReadPreamble(file);
  open_.push_back(file.path);
  ResolvedFile resolved{ResolveDocuments(file, schema), preamble.description};
  open_.pop_back();
  return resolved;
}

YamlValue ImportResolver::ResolveDocuments(const RecipeFile& file, const Schema& schema) {
  auto documents = ParseYaml(file.text, file.path);
  if (!documents) throw RecipeProblem{documents.errors().front()};
  std::vector<YamlValue>& parts = *documents;
  if (parts.empty() || (parts.size() == 1 && parts[0].IsNull())) {
    YamlValue empty = Place(file, 1);
    empty.kind = YamlValue::Kind::kMap;
    return empty;
  }
  if (parts.size() > 2) Fail(parts[2], fmt::format("{} documents; one or two are expected", parts.size()));
  YamlValue body = std::move(parts.back());
  Names names;
  if (parts.size() == 2) {
    YamlValue& header = parts[0];
    if (!header.IsMap()) Fail(header, "the first of two documents is no mapping");
    if (body.IsNull()) body.kind = YamlValue::Kind::kMap;
    if (body.IsMap()) {
      for (size_t i = 0; i < body.keys.size(); ++i) header.Set(body.keys[i], std::move(body.items[i]));
      body = std::move(header);
    } else if (body.IsList()) {
      names = ReadImports(header.Find("imports"));
    }
  }
  if (!body.IsMap() && !body.IsList())
    Fail(body, fmt::format("{} where a mapping or a list is expected", Described(body)));
  ReadBitStrings(&body);
  if (body.IsMap()) {
    names = ReadImports(body.Find("imports"));
    body.Erase("imports");
  }
  return ResolveValue(std::move(body), schema, names);
}

ImportResolver::Names ImportResolver::ReadImports(const YamlValue* imports) {
  Names names;
  if (imports == nullptr || imports->IsNull()) return names;
  if (!imports->IsMap()) Fail(*imports, "imports is no mapping of names to files");
  for (size_t i = 0; i < imports->keys.size(); ++i) {
    if (!imports->keys[i].IsString()) Fail(imports->keys[i], "the name of an import is no text");
    names[imports->keys[i].text] = &Import(imports->items[i]);
  }
  return names;
}

const ImportResolver::Imported& ImportResolver::Import(const YamlValue& path) {
  if (!path.IsString() || path.text.empty()) Fail(path, "an import without the path of a file");
  auto found = FindImport(sources_, path.text);
  if (!found) throw RecipeProblem{found.errors().front()};
  if (!*found) {
    Fail(path, fmt::format("no file {}, which is imported here", Described(path)),
         "looked for .yml and .yaml in the working directory, the recipe folders and the built-in library");
  }
  const RecipeFile& file = **found;
  if (std::find(open_.begin(), open_.end(), file.path) != open_.end())
    Fail(path, fmt::format("a circle of imports: {} is being read already", Printable(file.path)));
  if (const auto it = done_.find(file.path); it != done_.end()) return it->second;
  if (done_.size() >= kMaxFiles) Fail(path, fmt::format("more than {} files imported", kMaxFiles));
  if (open_.size() >= kMaxImportDepth) Fail(path, fmt::format("imports nested deeper than {}", kMaxImportDepth));

  const Preamble preamble = ReadPreamble(file);
  if (!preamble.schema) {
    Fail(Place(file, 1), "an imported file without a modelopt-schema comment",
         "name its type before its content: # modelopt-schema: "
         "modelopt.torch.quantization.config.QuantizerAttributeConfig");
  }
  const auto schema = SchemaNamed(*preamble.schema);
  if (!schema) {
    Fail(Place(file, preamble.schema_line),
         fmt::format("the modelopt-schema {} lies outside modelopt", Printable(*preamble.schema)));
  }
  open_.push_back(file.path);
  Imported imported{ResolveDocuments(file, *schema), *schema};
  open_.pop_back();
  CheckAgainstSchema(imported.value, *schema);
  return done_.emplace(file.path, std::move(imported)).first->second;
}

const ImportResolver::Imported& ImportResolver::Lookup(const YamlValue& reference, const Names& names) const {
  const auto it = reference.IsString() ? names.find(reference.text) : names.end();
  if (it != names.end()) return *it->second;
  std::vector<std::string> known;
  for (const auto& [name, imported] : names) known.push_back(Printable(name));
  Fail(reference, fmt::format("$import of {}, which is no name under imports", Described(reference)),
       known.empty() ? "this file declares no imports" : fmt::format("declared are {}", fmt::join(known, ", ")));
}

YamlValue ImportResolver::ResolveValue(YamlValue value, const Schema& schema, const Names& names) {
  if (value.IsMap()) return ResolveMap(std::move(value), schema, names);
  if (value.IsList()) return ResolveList(std::move(value), schema, names);
  return value;
}

// The imported mappings from left to right, then the keys beside $import, each replacing a whole value.
YamlValue ImportResolver::ResolveMap(YamlValue map, const Schema& schema, const Names& names) {
  if (const YamlValue* reference = map.Find(kImport)) {
    YamlValue merged = map;
    merged.keys.clear();
    merged.items.clear();
    const std::vector<YamlValue> references =
        reference->IsList() ? reference->items : std::vector<YamlValue>{*reference};
    for (const YamlValue& name : references) {
      const Imported& imported = Lookup(name, names);
      if (!imported.value.IsMap()) {
        Fail(name,
             fmt::format("$import of {} in a mapping, but that is {}", Described(name), Described(imported.value)));
      }
      Count(imported.value);
      for (size_t i = 0; i < imported.value.keys.size(); ++i)
        merged.Set(imported.value.keys[i], imported.value.items[i]);
    }
    map.Erase(kImport);
    for (size_t i = 0; i < map.keys.size(); ++i) merged.Set(map.keys[i], std::move(map.items[i]));
    map = std::move(merged);
  }
  for (size_t i = 0; i < map.keys.size(); ++i) {
    const Schema child = map.keys[i].IsString() ? ChildSchema(schema, map.keys[i].text) : Schema{};
    map.items[i] = ResolveValue(std::move(map.items[i]), child, names);
  }
  return map;
}

YamlValue ImportResolver::ResolveList(YamlValue list, const Schema& schema, const Names& names) {
  std::vector<YamlValue> items = std::move(list.items);
  list.items.clear();
  const Schema element = ElementSchema(schema).value_or(Schema{});
  for (YamlValue& item : items) {
    if (item.IsMap() && item.keys.size() == 1 && item.Find(kImport) != nullptr) {
      Splice(*item.Find(kImport), schema, names, &list.items);
    } else {
      list.items.push_back(ResolveValue(std::move(item), element, names));
    }
  }
  return list;
}

void ImportResolver::Splice(const YamlValue& reference, const Schema& list_schema, const Names& names,
                            std::vector<YamlValue>* out) {
  const Imported& imported = Lookup(reference, names);
  const auto element = ElementSchema(list_schema);
  if (!element) Fail(reference, "$import in a list whose type is not known");
  Count(imported.value);
  if (IsListOf(imported.schema, list_schema)) {
    if (!imported.value.IsList()) Fail(imported.value, "a list of quantizer entries that is no list");
    out->insert(out->end(), imported.value.items.begin(), imported.value.items.end());
  } else if (imported.schema == *element) {
    out->push_back(imported.value);
  } else {
    Fail(reference, fmt::format("$import of {}, {}, into a list whose elements are each {}", Described(reference),
                                SchemaTypeName(imported.schema), SchemaTypeName(*element)));
  }
}

}  // namespace quantport
