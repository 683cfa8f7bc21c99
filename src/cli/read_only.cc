// The commands that write nothing: verify, inspect, rules.
#include <fmt/format.h>

#include <memory>
#include <optional>

#include "cli/commands.h"
#include "cli/exit_status.h"
#include "cli/mapping_arguments.h"
#include "cli/terminal.h"
#include "quantport/quantport.h"

namespace quantport::cli {
namespace {

struct VerifyArguments {
  VerifyOptions options;
  bool no_reference = false;
  MappingArguments mapping;
  bool json = false;
  bool quiet = false;
};

// Notes of an engine's checks; its problems are among the report's.
void PrintEngineNotes(const EngineReport& report) {
  std::vector<std::string> notes;
  for (const EngineFinding& finding : report.findings) {
    if (finding.problem) continue;
    notes.push_back(fmt::format("{}{}{} [{}]", finding.subject, finding.subject.empty() ? "" : ": ", finding.reason,
                                finding.check));
  }
  PrintNotes(notes, "note");
}

int RunVerify(VerifyArguments& arguments) {
  arguments.options.mapping = arguments.mapping.Options();
  arguments.options.find_reference = !arguments.no_reference;
  auto report = Verify(arguments.options);
  if (!report) {
    const int status = Fail(report.errors(), arguments.json);
    // A mismatch is a problem of a report; as an error it is that there is no reference to verify against.
    return report.errors().front().kind == ErrorKind::kReferenceMismatch ? kUsage : status;
  }
  if (arguments.json) {
    fmt::print("{}", VerifyJson(*report));
  } else {
    if (!arguments.quiet) PrintNotes(report->notes, "note");
    if (!arguments.quiet) PrintWarnings(report->warnings);
    if (!arguments.quiet && report->engine) PrintEngineNotes(*report->engine);
    PrintErrors(report->problems);
    if (!report->problems.empty()) {
      fmt::print(stderr, "{}", VerifyText(*report));
    } else if (!arguments.quiet) {
      fmt::print("{}", VerifyText(*report));
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
    PrintWarnings(report->warnings);
    PrintErrors(report->problems);
  }
  return report->problems.empty() ? kDone : kFailed;
}

struct RulesArguments {
  std::string path;
  std::string reference;
  std::vector<std::string> names;
  MappingArguments mapping;
  bool json = false;
};

int RunRules(const RulesArguments& arguments) {
  const MappingOptions mapping = arguments.mapping.Options();
  auto report = Rules(arguments.path, mapping);
  if (!report) return Fail(report.errors(), arguments.json);
  auto names = ExplainNames(arguments.path, arguments.names, mapping);
  if (!names) return Fail(names.errors(), arguments.json);
  std::optional<RuleComparison> comparison;
  if (!arguments.reference.empty()) {
    auto compared = CompareRules(arguments.path, arguments.reference, mapping);
    if (!compared) return Fail(compared.errors(), arguments.json);
    comparison = std::move(*compared);
  }
  if (arguments.json) {
    fmt::print("{}", RulesJson(*report, *names, comparison ? &*comparison : nullptr));
    return kDone;
  }
  fmt::print("{}", RulesText(*report, *names, comparison ? &*comparison : nullptr));
  return kDone;
}

}  // namespace

void AddVerify(CLI::App* app, Action* action) {
  auto arguments = std::make_shared<VerifyArguments>();
  CLI::App* command =
      app->add_subcommand("verify", "Hold a checkpoint against its hub checkpoint, an inference engine, or both");
  command->add_option("CHECKPOINT", arguments->options.checkpoint, "Folder to verify")->required();
  command
      ->add_option("--reference", arguments->options.reference,
                   "The hub checkpoint's folder, or its model.safetensors.index.json; default: looked for in the local "
                   "Hugging Face cache (config.json's _name_or_path, the model card's base_model)")
      ->option_text("HUB");
  command
      ->add_flag("--no-reference", arguments->no_reference,
                 "Hold the checkpoint against itself alone: index, headers, scales and configs, and no names")
      ->excludes("--reference");
  command
      ->add_option(
          "--engine", arguments->options.engine,
          "Whether this engine loads it whole: vllm, sglang or tensorrt-llm; with @VERSION for another one than "
          "the newest known")
      ->option_text("NAME");
  command->add_option("--engine-file", arguments->options.engine_file, "Facts about an engine that are not built in")
      ->option_text("FILE")
      ->check(CLI::ExistingFile);
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
  command
      ->add_option("--name", arguments->names,
                   "Tell of this name which transforms fire on it and why, saved and loaded; may be repeated")
      ->option_text("NAME")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command
      ->add_option("--reference", arguments->reference,
                   "The hub checkpoint: list the names and transforms for which the rules alone go wrong")
      ->option_text("HUB");
  command->add_flag("--json", arguments->json, "Print it as JSON, in the form of mapping files");
  command->callback([arguments, action] { *action = [arguments] { return RunRules(*arguments); }; });
}

}  // namespace quantport::cli
