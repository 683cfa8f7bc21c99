// The commands that write nothing: verify, inspect, rules.
#include <fmt/format.h>

#include <memory>

#include "cli/commands.h"
#include "cli/exit_status.h"
#include "cli/mapping_arguments.h"
#include "cli/terminal.h"
#include "quantport/quantport.h"

namespace quantport::cli {
namespace {

struct VerifyArguments {
  VerifyOptions options;
  MappingArguments mapping;
  bool json = false;
  bool quiet = false;
};

int RunVerify(VerifyArguments& arguments) {
  arguments.options.mapping = arguments.mapping.Options();
  auto report = Verify(arguments.options);
  if (!report) return Fail(report.errors(), arguments.json);
  if (arguments.json) {
    fmt::print("{}", VerifyJson(*report));
  } else {
    if (!arguments.quiet) PrintNotes(report->notes, "note");
    PrintErrors(report->problems);
    if (report->problems.empty() && !arguments.quiet) {
      fmt::print("verified: {} tensors, {} weights with the names{} of the reference\n", report->tensors,
                 report->compared, report->shapes ? " and shapes" : "");
    } else if (!report->problems.empty()) {
      fmt::print(stderr, "not verified: {} problems\n", report->problems.size());
    }
  }
  return report->problems.empty() ? kDone : kFailed;
}

struct InspectArguments {
  std::string path;
  InspectTextOptions text;
  bool json = false;
};

int RunInspect(InspectArguments& arguments) {
  auto report = Inspect(arguments.path);
  if (!report) return Fail(report.errors(), arguments.json);
  arguments.text.width = TerminalWidth();
  fmt::print("{}", arguments.json ? InspectJson(*report) : InspectText(*report, arguments.text));
  if (!arguments.json) {
    PrintNotes(report->notes, "note");
    PrintErrors(report->problems);
  }
  return report->problems.empty() ? kDone : kFailed;
}

struct RulesArguments {
  std::string path;
  MappingArguments mapping;
  bool json = false;
};

int RunRules(const RulesArguments& arguments) {
  auto report = Rules(arguments.path, arguments.mapping.Options());
  if (!report) return Fail(report.errors(), arguments.json);
  if (arguments.json) {
    fmt::print("{}", report->json);
    return kDone;
  }
  fmt::print("{}\nmapping of {}: {}\n", report->architecture, report->mapping, report->mapping_reason);
  for (const SubModelReport& sub : report->submodels)
    fmt::print("  {:<40} {} ({})\n", sub.path.empty() ? "." : sub.path, sub.class_name, sub.model_type);
  for (const std::string& transform : report->transforms) fmt::print("{}\n", transform);
  return kDone;
}

}  // namespace

void AddVerify(CLI::App* app, Action* action) {
  auto arguments = std::make_shared<VerifyArguments>();
  CLI::App* command =
      app->add_subcommand("verify", "Hold a checkpoint's names, shapes, scales and configs against the hub checkpoint");
  command->add_option("CHECKPOINT", arguments->options.checkpoint, "Folder to verify")->required();
  command
      ->add_option("--reference", arguments->options.reference,
                   "The hub checkpoint's folder, or its model.safetensors.index.json")
      ->option_text("HUB")
      ->required();
  AddMappingArguments(command, &arguments->mapping);
  command->add_flag("--json", arguments->json, "Print the report as JSON");
  command->add_flag("-q,--quiet", arguments->quiet, "Print problems only");
  command->callback([arguments, action] { *action = [arguments] { return RunVerify(*arguments); }; });
}

void AddInspect(CLI::App* app, Action* action) {
  auto arguments = std::make_shared<InspectArguments>();
  CLI::App* command =
      app->add_subcommand("inspect", "Show a checkpoint's modules as a tree with their formats, shapes and bytes");
  command->add_option("CHECKPOINT", arguments->path, "Folder to inspect")->required();
  command->add_option("--depth", arguments->text.depth, "Levels of the tree; default: as many as fit in 200 lines")
      ->option_text("N")
      ->check(CLI::Range(1, 1000));
  command->add_flag("--modules", arguments->text.modules, "A line for every module instead of the tree");
  command->add_flag("--json", arguments->json, "Print the report as JSON");
  command->callback([arguments, action] { *action = [arguments] { return RunInspect(*arguments); }; });
}

void AddRules(CLI::App* app, Action* action) {
  auto arguments = std::make_shared<RulesArguments>();
  CLI::App* command =
      app->add_subcommand("rules", "Show the conversion mapping that applies to a checkpoint's config.json");
  command->add_option("CHECKPOINT", arguments->path, "Folder with a config.json")->required();
  AddMappingArguments(command, &arguments->mapping);
  command->add_flag("--json", arguments->json, "Print it as JSON, in the form of mapping files");
  command->callback([arguments, action] { *action = [arguments] { return RunRules(*arguments); }; });
}

}  // namespace quantport::cli
