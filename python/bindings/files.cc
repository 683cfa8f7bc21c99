// The operations on files.
#include <nanobind/nanobind.h>
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "bindings.h"
#include "errors.h"
#include "operation.h"
#include "quantport/quantize.h"
#include "quantport/quantport.h"
#include "reports.h"
#include "text.h"

namespace nb = nanobind;
namespace fs = std::filesystem;
using nb::literals::operator""_a;

namespace quantport::python {
namespace {

// `name(options, progress)` that runs `operation` with both. The options are copied: Python may change its own
// meanwhile.
template <typename Options, typename Report>
void DefWatched(nb::module_& module, const char* name, Result<Report> (*operation)(const Options&), const char* doc) {
  module.def(
      name,
      [operation](Options options, const nb::object& progress) {
        return RunOperation<Report>(progress, [&](const Watch& watch) {
          options.progress = watch.progress;
          options.cancel = watch.cancel;
          return operation(options);
        });
      },
      "options"_a, "progress"_a.none(), doc);
}

// The same of what reads headers only: it can't be stopped, but does not block other threads.
template <typename Report, typename Call>
Report Unwatched(const Call& call) {
  return RunOperation<Report>(nb::none(), [&](const Watch&) { return call(); });
}

Result<RulesAnswer> AskRules(const fs::path& checkpoint, const std::vector<std::string>& names,
                             const std::optional<fs::path>& reference, const MappingOptions& mapping) {
  RulesAnswer answer;
  auto rules = Rules(checkpoint, mapping);
  if (!rules) return rules.errors();
  answer.rules = std::move(*rules);
  auto explained = ExplainNames(checkpoint, names, mapping);
  if (!explained) return explained.errors();
  answer.names = std::move(*explained);
  if (!reference) return answer;
  auto comparison = CompareRules(checkpoint, *reference, mapping);
  if (!comparison) return comparison.errors();
  answer.comparison = std::move(*comparison);
  return answer;
}

void BindReading(nb::module_& module) {
  module.def(
      "inspect",
      [](const fs::path& checkpoint) { return Unwatched<InspectReport>([&] { return Inspect(checkpoint); }); },
      "checkpoint"_a, "What a checkpoint is made of.");
  module.def(
      "verify",
      [](const VerifyOptions& options) { return Unwatched<VerifyReport>([copy = options] { return Verify(copy); }); },
      "options"_a, "Holds a checkpoint against the hub's.");
  module.def(
      "rules",
      [](const fs::path& checkpoint, const std::vector<std::string>& names, const std::optional<fs::path>& reference,
         const MappingOptions& mapping) {
        return Unwatched<RulesAnswer>([&, copy = mapping] { return AskRules(checkpoint, names, reference, copy); });
      },
      "checkpoint"_a, "names"_a, "reference"_a.none(), "mapping"_a, "The mapping that applies to a checkpoint.");
  module.def(
      "recipe_list", [] { return RecipeList{}; }, "The built-in recipes.");
  module.def("stop_all", &StopAll, "Stops every operation and lets none begin: for the end of the interpreter.");
  module.def("transformers_versions", &BuiltInTransformersVersions,
             "The transformers versions whose mappings are built in, oldest first.");
}

void BindProblems(nb::module_& module) {
  module.def(
      "problem_line",
      [](std::string message, std::string file, std::string tensor, std::string hint) {
        const Error error = {ErrorKind::kIo, std::move(message), std::move(file), std::move(tensor), std::move(hint)};
        return Text(error.ToString());
      },
      "message"_a, "file"_a, "tensor"_a, "hint"_a, "\"file: tensor: message (hint)\" with control characters escaped.");
}

}  // namespace

void BindFiles(nb::module_& module) {
  DefWatched(module, "revert", Revert, "Gives an export its hub names.");
  DefWatched(module, "plan_revert", PlanRevert, "What revert would do.");
  DefWatched(module, "repair", Repair, "Mends what breaks engines.");
  DefWatched(module, "apply", Apply, "Gives a hub checkpoint the names in memory.");
  DefWatched(module, "quantize", Quantize, "Quantizes a hub checkpoint.");
  DefWatched(module, "plan_quantize", PlanQuantize, "What quantize would do.");
  DefWatched(module, "dequantize", Dequantize, "Makes weights plain numbers again.");
  DefWatched(module, "diff", Diff, "Compares two checkpoints.");
  module.def(
      "recover",
      [](const fs::path& folder, bool undo) { return Unwatched<RecoverReport>([&] { return Recover(folder, undo); }); },
      "folder"_a, "undo"_a, "Finishes an interrupted change in place, or takes it back.");
  BindReading(module);
  BindProblems(module);
}

}  // namespace quantport::python
