#include "verify/config_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "config/module_set.h"

namespace quantport {
namespace {

bool IsQuantized(const WeightUnit& unit) {
  return unit.role == UnitRole::kValue && unit.weight.format != FormatId::kPlain;
}

class ConfigCheck {
 public:
  ConfigCheck(const ConfigFiles& configs, const std::vector<WeightUnit>& units)
      : configs_(configs), modules_(WeightModules(units)) {
    for (const WeightUnit& unit : units) {
      if (IsQuantized(unit)) quantized_.insert(unit.module);
    }
  }

  Errors Run() {
    for (const auto& [file, scheme] : configs_.schemes) {
      CheckExcluded(file, scheme);
      CheckLayers(file, scheme);
    }
    CheckAgreement();
    return std::move(errors_);
  }

 private:
  static std::vector<std::string> WeightModules(const std::vector<WeightUnit>& units) {
    std::vector<std::string> modules;
    for (const WeightUnit& unit : units) {
      if (unit.role == UnitRole::kValue && (unit.style == NameStyle::kModule || IsQuantized(unit)))
        modules.push_back(unit.module);
    }
    return modules;
  }

  void Add(const std::string& file, std::string message, std::string tensor = {}) {
    errors_.push_back({ErrorKind::kInvalidConfig, std::move(message), file, std::move(tensor), {}});
  }

  void CheckExcluded(const std::string& file, const QuantScheme& scheme) {
    size_t matching = 0;
    for (const std::string& entry : scheme.excluded) {
      matching += modules_.Matches(entry).empty() ? 0 : 1;
    }
    if (!scheme.excluded.empty() && matching == 0) {
      Add(file, fmt::format("none of the {} exclude entries matches any module: they are in another namespace",
                            scheme.excluded.size()));
    }
  }

  void CheckLayers(const std::string& file, const QuantScheme& scheme) {
    for (const LayerScheme& layer : scheme.quantized_layers) {
      const std::string& entry = layer.entry;
      const auto hits = modules_.Matches(entry);
      const bool any = std::any_of(hits.begin(), hits.end(),
                                   [&](uint32_t hit) { return quantized_.contains(modules_.names()[hit]); });
      if (!any && !hits.empty())
        Add(file, "quantized_layers names this module, but its tensors are not quantized", entry);
    }
  }

  std::set<uint32_t> Meaning(const QuantScheme& scheme) const {
    std::set<uint32_t> all;
    for (const std::string& entry : scheme.excluded) {
      const auto hits = modules_.Matches(entry);
      all.insert(hits.begin(), hits.end());
    }
    return all;
  }

  void CheckAgreement() {
    const auto config = configs_.schemes.find(std::string(kConfigName));
    const auto quant = configs_.schemes.find(std::string(kQuantConfigName));
    if (config == configs_.schemes.end() || quant == configs_.schemes.end()) return;
    if (!config->second.has_exclude_list || !quant->second.has_exclude_list) return;
    const std::set<uint32_t> a = Meaning(config->second);
    const std::set<uint32_t> b = Meaning(quant->second);
    std::vector<uint32_t> differ;
    std::set_symmetric_difference(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(differ));
    if (differ.empty()) return;
    Add(std::string(kConfigName),
        fmt::format("config.json and hf_quant_config.json exclude different modules, {} of them", differ.size()),
        modules_.names()[differ[0]]);
  }

  const ConfigFiles& configs_;
  ModuleSet modules_;
  std::set<std::string> quantized_;
  Errors errors_;
};

}  // namespace

Errors CheckConfigs(const ConfigFiles& configs, const std::vector<WeightUnit>& units) {
  return ConfigCheck(configs, units).Run();
}

}  // namespace quantport
