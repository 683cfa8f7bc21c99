#include <fmt/format.h>

#include <memory>
#include <optional>

#include "cli/commands.h"
#include "cli/exit_status.h"
#include "cli/interrupt.h"
#include "cli/mapping_arguments.h"
#include "cli/terminal.h"
#include "quantport/quantport.h"

namespace quantport::cli {
namespace {

struct Arguments {
  DiffOptions options;
  MappingArguments mapping;
  bool no_data = false;
  bool all = false;
  bool json = false;
  bool quiet = false;
};

int Run(Arguments& arguments) {
  DiffOptions& options = arguments.options;
  options.data = !arguments.no_data;
  options.mapping = arguments.mapping.Options();
  options.cancel = CatchInterrupts();
  std::optional<ProgressLine> progress(std::in_place, arguments.quiet || arguments.json);
  options.progress = [&](uint64_t done, uint64_t total) { progress->Update(done, total); };
  auto report = Diff(options);
  progress.reset();
  if (!report) {
    if (report.errors().front().kind != ErrorKind::kCancelled) return Fail(report.errors(), arguments.json);
    fmt::print(stderr, "interrupted\n");
    return InterruptedStatus();
  }
  if (arguments.json) {
    fmt::print("{}", DiffJson(*report));
  } else if (!arguments.quiet) {
    PrintNotes(report->notes, "note");
    fmt::print("{}", DiffText(*report, arguments.all));
  }
  return report->Same() ? kDone : kFailed;
}

}  // namespace

void AddDiff(CLI::App* app, Action* action) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app->add_subcommand("diff", "Compare two checkpoints: tensors, bytes and config files");
  command->add_option("A", arguments->options.a, "Folder of a checkpoint")->required();
  command->add_option("B", arguments->options.b, "Folder of another")->required();
  command->add_flag("--map", arguments->options.map,
                    "Bring in-memory and hub names together through the model's conversion mapping");
  command->add_flag("--no-data", arguments->no_data, "Compare names, dtypes and shapes of tensors, not their bytes");
  AddMappingArguments(command, &arguments->mapping);
  command->add_option("--threads", arguments->options.threads, "Threads that read; default: chosen from the machine")
      ->option_text("N")
      ->check(CLI::Range(1, 256));
  command->add_flag("--all", arguments->all, "List every difference instead of up to five of a kind");
  command->add_flag("--json", arguments->json, "Print the report as JSON");
  command->add_flag("-q,--quiet", arguments->quiet, "Print errors only; the exit status tells whether they differ");
  command->footer("Exit status: 0 no difference, 1 differences or failed, 2 usage, 130 interrupted.");
  command->callback([arguments, action] { *action = [arguments] { return Run(*arguments); }; });
}

}  // namespace quantport::cli
