#include "dialect/quantization_json.h"

#include "dialect/dialect.h"
#include "dialect/reading.h"

namespace quantport {

std::vector<Json*> FindQuantizations(Json* config) {
  std::vector<Json*> found;
  const auto add = [&](Json* parent, const char* key) {
    if (auto it = parent->find(key); it != parent->end() && it->is_object()) found.push_back(&*it);
  };
  add(config, "quantization_config");
  add(config, "compression_config");
  add(config, "quantization");
  if (auto text = config->find("text_config"); text != config->end() && text->is_object())
    add(&*text, "quantization_config");
  const bool itself = FindDialect(*config) != nullptr || !StringAt(*config, "quant_method").empty();
  if (found.empty() && itself) found.push_back(config);
  return found;
}

}  // namespace quantport
