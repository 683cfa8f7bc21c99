// The types that `# modelopt-schema:` comments name, as far as they decide what an import means.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace quantport {

enum class SchemaType : uint8_t {
  kUntyped,
  kRecipe,            // metadata and quantize
  kQuantize,          // algorithm and quant_cfg
  kEntryList,         // what quant_cfg is
  kEntry,             // one of its entries
  kAttributesOrList,  // what an entry's cfg is
  kAttributes,        // of one quantizer
  kOther,             // of ModelOpt, but nothing that a PTQ recipe holds
};

struct Schema {
  SchemaType type = SchemaType::kUntyped;
  std::string name;  // as written, for kOther

  friend bool operator==(const Schema&, const Schema&) = default;
};

// Nothing where the name lies outside ModelOpt.
std::optional<Schema> SchemaNamed(std::string_view name);

// The type of a value under `key` of a mapping, and of the elements of a list.
Schema ChildSchema(const Schema& schema, std::string_view key);
std::optional<Schema> ElementSchema(const Schema& schema);
// Whether an import of type `imported` splices into a list of type `list`.
bool IsListOf(const Schema& imported, const Schema& list);

std::string_view SchemaTypeName(const Schema& schema);

}  // namespace quantport
