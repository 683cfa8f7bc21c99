#include "mapping/published.h"

#include <stdexcept>

#include "base/embedded.h"
#include "base/json.h"

QUANTPORT_EMBED(quantport_published, QUANTPORT_PUBLISHED_FILE)

namespace quantport {
namespace {

std::map<std::string, PublishedNames> Read() {
  const auto json =
      ParseJson(QUANTPORT_EMBEDDED(quantport_published), "data/published.json", ErrorKind::kInvalidMapping);
  if (!json) throw std::logic_error(json.errors().front().message);
  std::map<std::string, PublishedNames> all;
  for (const Json& model : json->at("models")) {
    PublishedNames published{model.at("hubs").at(0).get<std::string>(),
                             model.at("names").get<std::vector<std::string>>(),
                             model.value("leaves", std::map<std::string, std::string>())};
    all.emplace(model.at("class").get<std::string>(), std::move(published));
  }
  return all;
}

}  // namespace

const PublishedNames* FindPublishedNames(const std::string& model_class) {
  static const std::map<std::string, PublishedNames> kModels = Read();
  const auto found = kModels.find(model_class);
  return found == kModels.end() ? nullptr : &found->second;
}

}  // namespace quantport
