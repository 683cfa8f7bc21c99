#include "recipe/schema.h"

#include <array>
#include <utility>

namespace quantport {
namespace {

constexpr std::array<std::pair<std::string_view, SchemaType>, 6> kNames = {{
    {"modelopt.recipe.config.ModelOptPTQRecipe", SchemaType::kRecipe},
    {"modelopt.torch.quantization.config.QuantizeConfig", SchemaType::kQuantize},
    {"modelopt.torch.quantization.config.QuantizerCfgListConfig", SchemaType::kEntryList},
    {"modelopt.torch.quantization.config.QuantizeQuantCfgType", SchemaType::kEntryList},
    {"modelopt.torch.quantization.config.QuantizerCfgEntry", SchemaType::kEntry},
    {"modelopt.torch.quantization.config.QuantizerAttributeConfig", SchemaType::kAttributes},
}};

}  // namespace

std::optional<Schema> SchemaNamed(std::string_view name) {
  for (const auto& [known, type] : kNames) {
    if (name == known) return Schema{type, {}};
  }
  if (!name.starts_with("modelopt.") || name.ends_with('.')) return std::nullopt;
  return Schema{SchemaType::kOther, std::string(name)};
}

Schema ChildSchema(const Schema& schema, std::string_view key) {
  switch (schema.type) {
    case SchemaType::kRecipe:
      return {key == "quantize" ? SchemaType::kQuantize : SchemaType::kUntyped, {}};
    case SchemaType::kQuantize:
      return {key == "quant_cfg" ? SchemaType::kEntryList : SchemaType::kUntyped, {}};
    case SchemaType::kEntry:
      return {key == "cfg" ? SchemaType::kAttributesOrList : SchemaType::kUntyped, {}};
    default:
      return {};
  }
}

std::optional<Schema> ElementSchema(const Schema& schema) {
  if (schema.type == SchemaType::kEntryList) return Schema{SchemaType::kEntry, {}};
  if (schema.type == SchemaType::kAttributesOrList) return Schema{SchemaType::kAttributes, {}};
  return std::nullopt;
}

bool IsListOf(const Schema& imported, const Schema& list) {
  return list.type == SchemaType::kEntryList && imported.type == SchemaType::kEntryList;
}

std::string_view SchemaTypeName(const Schema& schema) {
  switch (schema.type) {
    case SchemaType::kUntyped:
      return "no known type";
    case SchemaType::kRecipe:
      return "a recipe";
    case SchemaType::kQuantize:
      return "a quantization config";
    case SchemaType::kEntryList:
      return "a list of quantizer entries";
    case SchemaType::kEntry:
      return "a quantizer entry";
    case SchemaType::kAttributesOrList:
    case SchemaType::kAttributes:
      return "quantizer attributes";
    case SchemaType::kOther:
      return schema.name;
  }
  return {};
}

}  // namespace quantport
