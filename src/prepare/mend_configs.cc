#include "prepare/mend_configs.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/json.h"
#include "config/excluded.h"
#include "dialect/quantization_json.h"
#include "layout/misfits.h"
#include "quantport/warning.h"
#include "verify/compare_claims.h"

namespace quantport {
namespace {

// What is wrong in one file.
struct Wrong {
  std::vector<std::string> excluded;  // modules that are quantized
  std::vector<std::string> plain;     // modules that are not
  std::set<std::string> grouped;      // keys of weights with groups of another size
};

// Every number `from` under a key "group_size" of the quantizations.
bool ReplaceGroupSize(Json* json, uint64_t from, uint64_t to) {
  bool changed = false;
  if (json->is_object()) {
    for (auto& [key, value] : json->items()) {
      if (key == "group_size" && value.is_number_unsigned() && value.get<uint64_t>() == from) {
        value = to;
        changed = true;
      } else {
        changed |= ReplaceGroupSize(&value, from, to);
      }
    }
  } else if (json->is_array()) {
    for (Json& value : *json) changed |= ReplaceGroupSize(&value, from, to);
  }
  return changed;
}

class Mender {
 public:
  Mender(const Checkpoint& checkpoint, const ConfigFiles& configs, const std::vector<WeightUnit>& units,
         MatchBudget* budget)
      : checkpoint_(checkpoint), configs_(configs), units_(units), budget_(budget) {}

  Result<MendedConfigs> Mend() {
    auto claims = CompareClaims(configs_, units_, budget_);
    if (!claims) return claims.errors();
    if (claims->differences.empty()) return std::move(result_);
    if (std::none_of(units_.begin(), units_.end(), IsKnownQuantized)) {
      return Error{ErrorKind::kInvalidConfig,
                   "the configs say that the checkpoint is quantized, and no tensor is",
                   checkpoint_.folder->AddressOf(configs_.claims.begin()->first),
                   {},
                   "quantport dequantize writes it without what they say of a quantization"};
    }
    std::map<std::string, Wrong> files;
    for (const Difference& difference : claims->differences) {
      Wrong& wrong = files[difference.file];
      if (difference.kind == DifferenceKind::kExcluded) wrong.excluded.push_back(difference.tensor);
      if (difference.kind == DifferenceKind::kStoredPlain) wrong.plain.push_back(difference.tensor);
      if (difference.kind == DifferenceKind::kGroupSize) wrong.grouped.insert(difference.tensor);
    }
    for (const auto& [file, wrong] : files) {
      if (auto s = MendFile(file, wrong); !s) return s.errors();
    }
    if (auto s = CheckAgain(); !s) return s.errors();
    for (const Warning& warning : WarningsOf(claims->differences)) {
      result_.mended.push_back(Warning{warning.id, warning.text, warning.count, warning.names, {}}.ToString());
    }
    return std::move(result_);
  }

 private:
  Status MendFile(const std::string& file, const Wrong& wrong) {
    std::vector<std::string> quantized, plain;
    for (const WeightUnit& unit : units_) {
      if (unit.role == UnitRole::kValue) (IsKnownQuantized(unit) ? quantized : plain).push_back(unit.module);
    }
    const std::string path = checkpoint_.folder->AddressOf(file);
    const std::string& old = configs_.quantization_files.at(file);
    std::string text = old;
    if (!wrong.excluded.empty()) {
      auto dropped = DropExcluded(text, path, wrong.excluded, plain, budget_);
      if (!dropped) return dropped.errors();
      text = std::move(*dropped);
    }
    if (!wrong.plain.empty()) {
      auto added = AddExcluded(text, path, wrong.plain, quantized, budget_);
      if (!added) return added.errors();
      text = std::move(*added);
    }
    if (!wrong.grouped.empty()) {
      auto grouped = WithGroupSize(text, path, file, wrong.grouped);
      if (!grouped) return grouped.errors();
      text = std::move(*grouped);
    }
    if (text != old) result_.texts.emplace(file, std::move(text));
    return {};
  }

  // Where all weights of which it says another size have one size.
  Result<std::string> WithGroupSize(const std::string& text, const std::string& path, const std::string& file,
                                    const std::set<std::string>& keys) {
    std::set<uint64_t> sizes;
    for (const WeightUnit& unit : units_) {
      if (keys.contains(unit.key)) sizes.insert(unit.weight.variant.group);
    }
    if (sizes.size() != 1 || *sizes.begin() == 0) return text;
    auto json = ParseJson(text, path, ErrorKind::kInvalidConfig);
    if (!json) return json.errors();
    std::set<uint64_t> stated;
    for (const WeightScheme& scheme : configs_.claims.at(file).schemes) stated.insert(scheme.group_size);
    bool changed = false;
    for (Json* quantization : FindQuantizations(&*json)) {
      for (const uint64_t from : stated) changed |= from > 0 && ReplaceGroupSize(quantization, from, *sizes.begin());
    }
    return changed ? DumpJson(*json, StyleOf(text)) : text;
  }

  // What the new texts say is held against the tensors as what the old ones said was.
  Status CheckAgain() const {
    ConfigFiles mended;
    for (const auto& [file, text] : configs_.quantization_files) {
      const auto changed = result_.texts.find(file);
      auto added = AddConfig(file, checkpoint_.folder->AddressOf(file),
                             changed == result_.texts.end() ? text : changed->second, &mended);
      if (!added) return added;
    }
    auto units = RecognizeCheckpoint(checkpoint_, mended);
    if (!units) return units.errors();
    auto claims = CompareClaims(mended, *units, budget_);
    if (!claims) return claims.errors();
    Errors errors = ProblemsOf(claims->differences);
    for (Error& error : errors) error.hint = "the tensors leave more than one answer: mend the config by hand";
    return errors.empty() ? Status() : Status(std::move(errors));
  }

  const Checkpoint& checkpoint_;
  const ConfigFiles& configs_;
  const std::vector<WeightUnit>& units_;
  MatchBudget* budget_;
  MendedConfigs result_;
};

}  // namespace

Result<MendedConfigs> MendConfigs(const Checkpoint& checkpoint, const ConfigFiles& configs,
                                  const std::vector<WeightUnit>& units, MatchBudget* budget) {
  return Mender(checkpoint, configs, units, budget).Mend();
}

}  // namespace quantport
