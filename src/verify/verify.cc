#include "verify/verify.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "base/text.h"
#include "checkpoint/checkpoint.h"
#include "layout/misfits.h"
#include "layout/recognize.h"
#include "load/configs.h"
#include "load/find_reference.h"
#include "load/load.h"
#include "mapping/renamer.h"
#include "plan/draft_layers.h"
#include "plan/reference_check.h"
#include "plan/spelling.h"
#include "quantport/quantport.h"
#include "verify/compare_claims.h"
#include "verify/engine.h"
#include "verify/fused_scales.h"

namespace quantport {
namespace {

// Holds the units of a checkpoint against the reference's names and shapes.
class NameCheck {
 public:
  NameCheck(const std::vector<WeightUnit>& units, const ReferenceView& reference, const std::set<std::string>& tied,
            const DraftLayers& drafts, VerifyReport* report)
      : units_(units), reference_(reference), stacked_(reference), tied_(tied), drafts_(drafts), report_(report) {}

  void Run() {
    std::set<std::string_view> present;
    std::set<std::string> expanded;            // containers whose experts are stored one by one
    std::set<std::string_view> drafts = {""};  // paths of draft layers of which anything is stored
    for (const WeightUnit& unit : units_) {
      if (unit.role == UnitRole::kCacheScale) continue;
      present.insert(unit.key);
      drafts.insert(drafts_.PathOf(unit.key));
      if (unit.IsBelowProjection()) {
        report_->problems.push_back(
            {ErrorKind::kReferenceMismatch,
             fmt::format("engines read it as {}, with the number before the projection", SplitLeaf(unit.key).module),
             {},
             unit.module,
             "quantport revert renames it"});
      }
      expanded.insert(stacked_.ContainerOf(unit.key));
      CheckUnit(unit);
    }
    std::set<std::string_view> left_out;
    for (const std::string& key : reference_.keys) {
      const std::string container = stacked_.ContainerOfStacked(key);
      if (present.contains(key) || (!container.empty() && expanded.contains(container))) continue;
      if (const std::string_view draft = drafts_.PathOf(key); !drafts.contains(draft)) {
        left_out.insert(draft);
        continue;
      }
      Add("the reference has this tensor, the checkpoint does not", key);
    }
    NoteLeftOut(left_out);
  }

 private:
  void Add(std::string message, const std::string& tensor) {
    report_->problems.push_back({ErrorKind::kReferenceMismatch, std::move(message), {}, tensor, {}});
  }

  // A model runs without its draft layers; transformers loads and saves none.
  void NoteLeftOut(const std::set<std::string_view>& paths) {
    if (paths.empty()) return;
    Warning note;
    note.text = "draft (MTP) layers of the reference are not in the checkpoint, which can't draft tokens then";
    for (const std::string_view path : paths) AddName(std::string(path), &note);
    report_->notes.push_back(note.ToString());
  }

  void CheckUnit(const WeightUnit& unit) {
    if (!std::binary_search(reference_.keys.begin(), reference_.keys.end(), unit.key)) {
      if (!tied_.contains(unit.key) && !stacked_.Holds(unit.key))
        Add("the reference has no tensor of this name", unit.key);
      return;
    }
    ++report_->compared;
    CheckSpelling(unit);
    const auto shape = reference_.logical_shapes.find(unit.key);
    if (shape == reference_.logical_shapes.end() || unit.weight.format == FormatId::kUnrecognized) return;
    ++report_->shapes_compared;
    if (shape->second == unit.weight.shape) return;
    Add(fmt::format("the logical shape is [{}], the reference's [{}]", fmt::join(unit.weight.shape, ", "),
                    fmt::join(shape->second, ", ")),
        unit.key);
  }

  // An engine that maps the hub's names looks for the hub's name of a scale as well.
  void CheckSpelling(const WeightUnit& unit) {
    if (unit.style != NameStyle::kModule) return;
    for (const StoredPart& part : unit.weight.parts) {
      const LeafSpelling* hub = HubSpelling(part, &reference_);
      if (hub == part.spelling) continue;
      Add(fmt::format("the reference calls such a tensor {}", hub == nullptr ? part.leaf : hub->name),
          JoinName(unit.module, part.spelling == nullptr ? part.leaf : part.spelling->name));
    }
  }

  const std::vector<WeightUnit>& units_;
  const ReferenceView& reference_;
  const StackedExperts stacked_;
  const std::set<std::string>& tied_;
  const DraftLayers& drafts_;
  VerifyReport* report_;
};

// What is wrong in the same way with many tensors of draft layers is told once.
Errors OnceForDraftLayers(Errors problems, const DraftLayers& drafts) {
  struct Told {
    size_t at = 0;
    uint64_t more = 0;
  };
  std::map<std::tuple<std::string, std::string, std::string>, Told> told;  // by path of the layers, message and file
  Errors once;
  for (Error& problem : problems) {
    const std::string path(drafts.PathOf(problem.tensor));
    const auto [it, fresh] = told.emplace(std::tuple(path, problem.message, problem.file), Told{once.size(), 0});
    if (path.empty() || fresh) {
      once.push_back(std::move(problem));
    } else {
      ++it->second.more;
    }
  }
  for (const auto& [key, of] : told) {
    if (of.more > 0)
      once[of.at].message += fmt::format("; {} more of the draft layers {} likewise", of.more, std::get<0>(key));
  }
  return once;
}

// Hub names of tied weights, which a checkpoint may store or leave out.
std::set<std::string> TiedHubNames(const ModelMapping& model) {
  std::set<std::string> names(model.resolved.tied_weights.begin(), model.resolved.tied_weights.end());
  auto reverse = Renamer::Create(model.resolved.transforms, Renamer::Direction::kSave);
  if (!reverse) return names;
  for (const std::string& name : model.resolved.tied_weights) names.insert(reverse->Probe(name).name);
  return names;
}

// The reference that was given or is found; nothing where none is wanted. Errors: of the one given; kReferenceMismatch
// where none is found.
Result<std::optional<ReferenceNames>> ReferenceOf(const VerifyOptions& options, const Storage& storage,
                                                  VerifyReport* report) {
  std::string address = options.reference.string();
  if (address.empty()) {
    if (!options.find_reference) {
      report->notes.emplace_back("without a reference, names and shapes are held against nothing");
      return std::optional<ReferenceNames>();
    }
    auto finding = FindReference(storage, options.checkpoint.string());
    if (!finding) return finding.errors();
    std::optional<FoundReference>& found = *finding;
    if (!found && !options.engine.empty()) return std::optional<ReferenceNames>();
    if (!found) {
      return Error{ErrorKind::kReferenceMismatch,
                   "no reference is given, and neither config.json nor the model card names one that is in the Hugging "
                   "Face cache",
                   options.checkpoint.string(),
                   {},
                   "pass --reference HUB, whose index is enough, or --no-reference to leave names and shapes alone"};
    }
    report->notes.push_back(std::move(found->note));
    address = std::move(found->address);
  }
  auto names = OpenReference(storage, address);
  if (!names) return names.errors();
  report->reference = std::move(address);
  return std::optional(std::move(*names));
}

}  // namespace

Result<VerifyReport> Verify(const VerifyOptions& options, const Storage& storage) {
  VerifyReport report;
  auto reference_names = ReferenceOf(options, storage, &report);
  if (!reference_names) return reference_names.errors();
  auto checkpoint = OpenCheckpoint(storage, options.checkpoint.string());
  if (!checkpoint) {
    // A broken index or header is what verification is there to find.
    report.problems = checkpoint.errors();
    return report;
  }
  report.tensors = checkpoint->table.tensors.size();
  report.notes.insert(report.notes.end(), checkpoint->notes.begin(), checkpoint->notes.end());
  auto configs = ReadConfigs(*checkpoint);
  if (!configs) return configs.errors();
  auto model = LoadModel(configs->config_text, checkpoint->folder->AddressOf(kConfigName), options.mapping);
  if (!model) return model.errors();
  report.mapping = model->version;
  if (model->resolved.unmapped) report.warnings.push_back(*model->resolved.unmapped);
  if (auto note = ClassNote(model->resolved)) report.notes.push_back(std::move(*note));
  if (!options.engine.empty()) {
    auto engine = VerifyForEngine(*checkpoint, *configs, options.engine, options.engine_file);
    if (!engine) return engine.errors();
    for (Error& error : EngineProblems(*engine)) report.problems.push_back(std::move(error));
    report.engine = std::move(*engine);
  }
  auto units = RecognizeCheckpoint(*checkpoint, *configs);
  if (!units) {
    for (Error& error : units.errors()) report.problems.push_back(std::move(error));
    return report;
  }
  const std::set<std::string> tied = TiedHubNames(*model);
  const DraftLayers drafts(model->resolved);
  if (*reference_names) {
    const ReferenceView reference = MakeReferenceView(std::move(**reference_names));
    report.shapes = !reference.logical_shapes.empty();
    NameCheck(*units, reference, tied, drafts, &report).Run();
  }
  for (Error& error : SiblingScaleProblems(*units)) report.problems.push_back(std::move(error));
  auto unequal = FindUnequalScales(*checkpoint, *units);
  if (!unequal) return unequal.errors();
  for (Error& error : ProblemsOf(*unequal, *units)) report.problems.push_back(std::move(error));
  for (std::string& note : NotesOf(*unequal)) report.notes.push_back(std::move(note));
  MatchBudget budget;
  if (auto claims = CompareClaims(*configs, *units, &budget, tied)) {
    for (Error& error : ProblemsOf(claims->differences)) report.problems.push_back(std::move(error));
    for (std::string& note : DeadEntryNotes(*claims)) report.notes.push_back(std::move(note));
  } else {
    for (Error& error : claims.errors()) report.problems.push_back(std::move(error));
  }
  for (Error& error :
       UnknownWeightErrors(FindUnknownWeights(*units, configs->scheme.quantized), ErrorKind::kReferenceMismatch))
    report.problems.push_back(std::move(error));
  report.problems = OnceForDraftLayers(std::move(report.problems), drafts);
  return report;
}

}  // namespace quantport
