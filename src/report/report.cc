// Reports as text and JSON. The library returns strings; only the command line prints.
#include <fmt/format.h>

#include <algorithm>

#include "base/json.h"
#include "base/text.h"
#include "quantport/quantport.h"
#include "report/tree.h"
#include "report/warnings.h"

namespace quantport {
namespace {

std::string_view OutcomeName(RevertOutcome outcome) {
  switch (outcome) {
    case RevertOutcome::kReverted:
      return "reverted";
    case RevertOutcome::kApplied:
      return "applied";
    case RevertOutcome::kCopied:
      return "copied";
    case RevertOutcome::kKeptNames:
      return "kept_names";
  }
  return "";
}

Json ErrorList(const Errors& errors) {
  Json list = Json::array();
  for (const Error& error : errors) {
    list.push_back({{"kind", ErrorKindName(error.kind)},
                    {"file", error.file},
                    {"tensor", error.tensor},
                    {"message", error.message},
                    {"hint", error.hint}});
  }
  return list;
}

}  // namespace

Json WarningList(const std::vector<Warning>& warnings) {
  Json list = Json::array();
  for (const Warning& warning : warnings) {
    list.push_back({{"id", warning.id},
                    {"text", warning.text},
                    {"count", warning.count},
                    {"names", warning.names},
                    {"remedy", warning.remedy}});
  }
  return list;
}

namespace {

Json RescaledList(const std::vector<RescaledTensor>& rescaled) {
  Json list = Json::array();
  for (const RescaledTensor& tensor : rescaled) {
    list.push_back({{"name", tensor.name},
                    {"scalar", tensor.scalar},
                    {"elements", tensor.elements},
                    {"changed", tensor.changed},
                    {"rms_relative", tensor.rms_relative},
                    {"largest_relative", tensor.largest_relative}});
  }
  return list;
}

Json DroppedList(const std::vector<DroppedTensor>& dropped) {
  Json list = Json::array();
  for (const DroppedTensor& tensor : dropped)
    list.push_back({{"name", tensor.name}, {"kind", tensor.kind}, {"carried", tensor.carried}});
  return list;
}

Json ChangedFiles(const std::vector<FileChangeReport>& changes) {
  Json list = Json::array();
  for (const FileChangeReport& change : changes)
    list.push_back({{"name", change.name}, {"method", change.method}, {"reason", change.reason}});
  return list;
}

Json RevertReportJson(const RevertReport& report) {
  return {{"outcome", OutcomeName(report.outcome)},
          {"architecture", report.architecture},
          {"mapping", report.mapping},
          {"input_tensors", report.input_tensors},
          {"output_tensors", report.output_tensors},
          {"renamed", report.renamed},
          {"cut", report.cut},
          {"files", report.files},
          {"bytes", report.bytes},
          {"cloned_bytes", report.cloned_bytes},
          {"changed_files", ChangedFiles(report.changed_files)},
          {"ambiguous", report.ambiguous},
          {"ambiguous_examples", report.ambiguous_examples},
          {"ambiguous_transforms", report.ambiguous_transforms},
          {"published", report.published},
          {"rules_differ", report.rules_differ},
          {"rules_differ_examples", report.rules_differ_examples},
          {"only_in_reference", report.only_in_reference},
          {"dropped", DroppedList(report.dropped)},
          {"rescaled", RescaledList(report.rescaled)},
          {"left_out", report.left_out},
          {"notes", report.notes},
          {"warnings", WarningList(report.warnings)},
          {"unsupported", ErrorList(report.unsupported)}};
}

}  // namespace

std::string ReportJson(const RevertReport& report) { return DumpJson(RevertReportJson(report)); }

std::string RepairJson(const RepairReport& report) {
  return DumpJson({{"rescaled", RescaledList(report.rescaled)},
                   {"mended", report.mended},
                   {"tensors", report.tensors},
                   {"files", report.files},
                   {"bytes", report.bytes},
                   {"cloned_bytes", report.cloned_bytes},
                   {"changed_files", ChangedFiles(report.changed_files)},
                   {"notes", report.notes}});
}

std::string_view RecoverOutcomeName(RecoverOutcome outcome) {
  switch (outcome) {
    case RecoverOutcome::kNothing:
      return "nothing";
    case RecoverOutcome::kFinished:
      return "finished";
    case RecoverOutcome::kUndone:
      return "undone";
    case RecoverOutcome::kLeftovers:
      return "leftovers";
  }
  return "";
}

std::string RecoverJson(const RecoverReport& report) {
  return DumpJson({{"outcome", RecoverOutcomeName(report.outcome)}, {"files", report.files}});
}

std::string ErrorsJson(const Errors& errors) { return DumpJson({{"errors", ErrorList(errors)}}); }

std::string PlanText(const PlanReport& plan) {
  std::string out;
  for (const PlannedTensorReport& tensor : plan.tensors) {
    out += fmt::format("{} {} {} [{}] {} <-", Printable(tensor.file), Printable(tensor.name), DTypeName(tensor.dtype),
                       fmt::join(tensor.shape, ", "), tensor.bytes);
    for (const SourceRange& source : tensor.sources)
      out += fmt::format(" {} {} {}+{}", Printable(source.file), Printable(source.tensor), source.offset, source.bytes);
    if (!tensor.computed.empty()) out += fmt::format(" ({})", tensor.computed);
    out += '\n';
  }
  for (const auto& [name, text] : plan.configs) out += fmt::format("{} module references rewritten\n", Printable(name));
  return out;
}

std::string PlanJson(const PlanReport& plan) {
  Json json = {{"revert", RevertReportJson(plan.revert)}, {"tensors", Json::array()}, {"configs", Json::object()}};
  for (const PlannedTensorReport& tensor : plan.tensors) {
    Json sources = Json::array();
    for (const SourceRange& source : tensor.sources) {
      sources.push_back(
          {{"file", source.file}, {"tensor", source.tensor}, {"offset", source.offset}, {"bytes", source.bytes}});
    }
    json["tensors"].push_back({{"file", tensor.file},
                               {"name", tensor.name},
                               {"dtype", DTypeName(tensor.dtype)},
                               {"shape", tensor.shape},
                               {"offset", tensor.offset},
                               {"bytes", tensor.bytes},
                               {"layout", tensor.layout},
                               {"sources", std::move(sources)},
                               {"computed", tensor.computed}});
  }
  for (const auto& [name, text] : plan.configs) json["configs"][name] = text;
  return DumpJson(json);
}

namespace {

Json EngineJson(const EngineReport& report) {
  Json json = {{"engine", report.engine},
               {"version", report.version},
               {"held", report.held},
               {"complete", report.complete()},
               {"findings", Json::array()}};
  for (const EngineFinding& finding : report.findings) {
    json["findings"].push_back({{"check", finding.check},
                                {"problem", finding.problem},
                                {"unchecked", finding.unchecked},
                                {"file", finding.file},
                                {"subject", finding.subject},
                                {"reason", finding.reason},
                                {"remedy", finding.remedy}});
  }
  return json;
}

}  // namespace

std::string VerifyJson(const VerifyReport& report) {
  Json json = {{"verified", report.problems.empty()},
               {"mapping", report.mapping},
               {"reference", report.reference},
               {"tensors", report.tensors},
               {"compared", report.compared},
               {"shapes", report.shapes},
               {"shapes_compared", report.shapes_compared},
               {"problems", ErrorList(report.problems)},
               {"notes", report.notes},
               {"warnings", WarningList(report.warnings)},
               {"engine", nullptr}};
  if (report.engine) json["engine"] = EngineJson(*report.engine);
  return DumpJson(json);
}

std::string InspectJson(const InspectReport& report) {
  Json json = {{"architecture", report.architecture},
               {"quantization", report.quantization},
               {"files", report.files},
               {"tensors", report.tensors},
               {"bytes", report.bytes},
               {"bytes_by_dtype", report.bytes_by_dtype},
               {"totals", Json::array()},
               {"modules", Json::array()},
               {"notes", report.notes},
               {"warnings", WarningList(report.warnings)},
               {"problems", ErrorList(report.problems)}};
  for (const InspectTotal& total : report.totals) {
    json["totals"].push_back(
        {{"layout", total.layout}, {"weights", total.weights}, {"elements", total.elements}, {"bytes", total.bytes}});
  }
  for (const InspectModule& module : report.modules) {
    json["modules"].push_back({{"name", module.name},
                               {"layout", module.layout},
                               {"shape", module.shape},
                               {"bytes", module.bytes},
                               {"tensors", module.tensors}});
    if (!module.misfit.empty()) json["modules"].back()["misfit"] = module.misfit;
  }
  return DumpJson(json);
}

namespace {

std::string ModuleList(const std::vector<InspectModule>& modules) {
  std::string out;
  for (const InspectModule& module : modules) {
    out += fmt::format("{:<28} {:>10}  {}  [{}]\n", module.layout, HumanBytes(module.bytes), Printable(module.name),
                       fmt::join(module.shape, ", "));
  }
  return out;
}

}  // namespace

std::string InspectText(const InspectReport& report, const InspectTextOptions& options) {
  std::string out = options.modules ? ModuleList(report.modules) : ModuleTree(report.modules, options);
  out += fmt::format("{}{}{}\n", out.empty() ? "" : "\n",
                     report.architecture.empty() ? "unknown architecture" : Printable(report.architecture),
                     report.quantization.empty() ? "" : ", " + Printable(report.quantization));
  out += fmt::format("{} tensors in {} files, {}\n", report.tensors, report.files, HumanBytes(report.bytes));
  for (const InspectTotal& total : report.totals) {
    out += fmt::format("  {:<26} {:>10}  {} weights, {} elements\n", total.layout, HumanBytes(total.bytes),
                       total.weights, total.elements);
  }
  for (const auto& [dtype, bytes] : report.bytes_by_dtype)
    out += fmt::format("  {:<26} {:>10}\n", dtype, HumanBytes(bytes));
  return out;
}

}  // namespace quantport
