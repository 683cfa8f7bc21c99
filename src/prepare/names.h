// From tensors, configs and a mapping to names on the other side: what files and state dicts are converted with alike.
#pragma once

#include <atomic>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "dialect/module_names.h"
#include "io/storage.h"
#include "load/configs.h"
#include "mapping/model.h"
#include "plan/conversion.h"
#include "plan/dropped.h"
#include "quantport/quantport.h"
#include "safetensors/table.h"

namespace quantport {

enum class Direction { kRevert, kApply };

// What becomes of names that stay undecided (ErrorKind::kUndecidedNames).
enum class Undecided {
  kFail,    // as whatever can't be reverted; see OnUnsupported
  kWarn,    // nothing is written that would have them
  kAccept,  // the rules' names are asked for, and what is known of hubs is left aside
};

struct NameChoices {
  Direction direction = Direction::kRevert;
  OnUnsupported on_unsupported = OnUnsupported::kFail;
  ExpertForm experts = ExpertForm::kExpanded;
  MergeScales merge_scales = MergeScales::kRefuse;
  bool strict = false;
  Undecided undecided = Undecided::kFail;
  // A state dict's config may not speak of its quantization yet: exporters add that at the end.
  bool configs_are_complete = true;
  const std::atomic<bool>* cancel = nullptr;
};

// Where the conversion's tensors and configs come from; all of it must outlive the conversion.
struct NameSources {
  const TensorTable* table = nullptr;
  const ConfigFiles* configs = nullptr;
  std::string folder;  // of the config files, as errors call them; "" where they are in none
};

// Weights carried over from a reference: config files speak of them too.
struct CarriedModules {
  std::vector<std::string> plain;      // not quantized
  std::vector<std::string> quantized;  // as the reference has them quantized
};

// The stages in the order in which they are called; what they find goes into `report`.
class NameConversion {
 public:
  NameConversion(const NameChoices& choices, NameSources sources, RevertReport* report)
      : choices_(choices), sources_(std::move(sources)), report_(report), budget_{.cancel = choices.cancel} {}

  void SetReference(ReferenceView reference) { reference_ = std::move(reference); }

  Status ResolveMapping(const MappingOptions& options);

  // A model that was saved alone goes by the names it has inside the reference's: the language model of a
  // vision-language model. A reference that says nothing of its class, or is of the same one, changes nothing.
  // Errors: kIo.
  Status FindWhole(const Storage& storage, const std::string& reference, const MappingOptions& options);

  // `units` are the table's. Errors: theirs and those of RevertNames, but for what KeepNames deals with; contradictions
  // of the configs.
  Status Convert(Result<std::vector<WeightUnit>> units);

  // The outcome where `errors` mean that the export can't be converted and the caller asked to keep its names then: all
  // or nothing, so names and configs both stay as they are. Else the errors themselves.
  Status KeepNames(Errors errors);

  // What the export lacks, by kind. Errors: kInvalidMapping.
  Result<std::vector<Dropped>> FindDropped() const;

  // Errors: kReferenceMismatch with NameChoices::strict, for each name that only the reference has.
  Status CheckStrict() const;

  // The config files whose text changes. Errors: kInvalidConfig, kCancelled.
  Result<std::map<std::string, std::string>> RewriteConfigs(const CarriedModules& carried);

  RuleComparison Compare();

  // Fills what the report says of names.
  void Summarize(const CarriedModules& carried);

  bool kept() const { return kept_; }
  const ModelMapping& model() const { return model_; }
  Conversion& conversion() { return conversion_; }
  const Conversion& conversion() const { return conversion_; }

 private:
  std::string FileOf(std::string_view name) const;
  Status CheckDecided();

  const NameChoices choices_;
  const NameSources sources_;
  RevertReport* report_;
  MatchBudget budget_;  // of all that is held against the entries of configs
  std::optional<ReferenceView> reference_;
  ModelMapping model_;
  std::optional<SubModelPlace> place_;  // of the export's model in the reference's, where it is a part of that
  ResolvedModel whole_;
  std::vector<WeightUnit> units_;
  Conversion conversion_;
  bool kept_ = false;
};

}  // namespace quantport
