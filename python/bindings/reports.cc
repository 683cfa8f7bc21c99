// Reports stay values of C++ that can be printed; Python makes its own of their JSON, which is that of the command
// line.
#include "reports.h"

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <string>

#include "bindings.h"
#include "quantport/quantize.h"
#include "quantport/quantport.h"
#include "text.h"

namespace nb = nanobind;
using nb::literals::operator""_a;

namespace quantport::python {
namespace {

constexpr const char* kJson = "What the command line prints with --json.";
constexpr const char* kText = "What the command line prints.";

// A report with one text.
template <typename Report, std::string (*Json)(const Report&), std::string (*ToText)(const Report&)>
void Bind(nb::module_& module, const char* name) {
  nb::class_<Report>(module, name)
      .def(
          "json", [](const Report& report) { return Text(Json(report)); }, kJson)
      .def(
          "text", [](const Report& report) { return Text(ToText(report)); }, kText);
}

const RuleComparison* Comparison(const RulesAnswer& answer) {
  return answer.comparison ? &*answer.comparison : nullptr;
}

std::string RulesAnswerJson(const RulesAnswer& answer) {
  return RulesJson(answer.rules, answer.names, Comparison(answer));
}

std::string RulesAnswerText(const RulesAnswer& answer) {
  return RulesText(answer.rules, answer.names, Comparison(answer));
}

std::string RecipeListJson(const RecipeList&) { return RecipesJson(); }

std::string RecipeListText(const RecipeList&) { return RecipesText(); }

}  // namespace

void BindReports(nb::module_& module) {
  Bind<RevertReport, ReportJson, RevertText>(module, "RevertReport");
  Bind<PlanReport, PlanJson, PlanText>(module, "PlanReport");
  Bind<RepairReport, RepairJson, RepairText>(module, "RepairReport");
  Bind<RecoverReport, RecoverJson, RecoverText>(module, "RecoverReport");
  Bind<VerifyReport, VerifyJson, VerifyText>(module, "VerifyReport");
  Bind<RulesAnswer, RulesAnswerJson, RulesAnswerText>(module, "RulesReport");
  Bind<RecipeList, RecipeListJson, RecipeListText>(module, "RecipeList");
  nb::class_<InspectReport>(module, "InspectReport")
      .def(
          "json", [](const InspectReport& report) { return Text(InspectJson(report)); }, kJson)
      .def(
          "text",
          [](const InspectReport& report, bool modules, int depth, int width) {
            return Text(InspectText(report, {modules, width, depth}));
          },
          "modules"_a, "depth"_a, "width"_a, kText);
  nb::class_<DiffReport>(module, "DiffReport")
      .def(
          "json", [](const DiffReport& report) { return Text(DiffJson(report)); }, kJson)
      .def(
          "text", [](const DiffReport& report, bool all) { return Text(DiffText(report, all)); }, "all"_a, kText);
  nb::class_<QuantizeReport>(module, "QuantizeReport")
      .def(
          "json", [](const QuantizeReport& report) { return Text(QuantizeJson(report)); }, kJson)
      .def(
          "text", [](const QuantizeReport& report, size_t most) { return Text(QuantizeText(report, most)); }, "most"_a,
          kText)
      .def(
          "plan_text", [](const QuantizeReport& report) { return Text(QuantizePlanText(report)); }, kText)
      .def(
          "summary", [](const QuantizeReport& report) { return Text(QuantizeSummary(report)); },
          "What was done, in one line.");
}

}  // namespace quantport::python
