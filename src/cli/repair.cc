#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>

#include "cli/commands.h"
#include "cli/exit_status.h"
#include "cli/interrupt.h"
#include "cli/terminal.h"
#include "cli/writing.h"
#include "quantport/quantport.h"

namespace quantport::cli {
namespace {

struct Arguments {
  RepairOptions options;
  std::string output;
  std::string reflink = "auto";
  bool json = false;
  bool quiet = false;
};

int Run(Arguments& arguments) {
  RepairOptions& options = arguments.options;
  if (arguments.output.empty() && !options.in_place) {
    fmt::print(stderr, "error: -o OUT is needed (or --in-place)\n");
    return kUsage;
  }
  options.output = arguments.output;
  options.reflink = ReflinkOf(arguments.reflink);
  options.cancel = CatchInterrupts();
  auto progress = std::make_unique<ProgressLine>(arguments.quiet || arguments.json);
  options.progress = [&](uint64_t done, uint64_t total) { progress->Update(done, total); };
  auto report = Repair(options);
  progress.reset();
  if (!report) return FailWriting(report.errors(), options.in_place, arguments.json);
  if (arguments.json) {
    fmt::print("{}", RepairJson(*report));
  } else if (!arguments.quiet) {
    PrintNotes(report->notes, "note");
    fmt::print("{}", RepairText(*report));
  }
  return kDone;
}

}  // namespace

void AddRepair(CLI::App* app, Action* action) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app->add_subcommand(
      "repair", "Mend what breaks engines and has one right answer: unequal global scales, the index, exclude lists");
  command->add_option("DIR", arguments->options.input, "Folder of the checkpoint: config.json and safetensors files")
      ->required();
  command->add_option("-o,--output", arguments->output, "Folder to write; must not exist, or be empty")
      ->option_text("OUT");
  command
      ->add_flag("--in-place", arguments->options.in_place,
                 "Change the checkpoint itself. All files change or none; quantport recover finishes or undoes what a "
                 "crash interrupts")
      ->excludes("--output");
  command
      ->add_flag(
          "--force", arguments->options.detach_links,
          "With --in-place: replace files that are links or have several names (hub caches), instead of failing; "
          "what the other names show stays as it is")
      ->needs("--in-place");
  command
      ->add_option("--reflink", arguments->reflink,
                   "Let files share blocks with those they are made from, on xfs and btrfs: auto (where it can be "
                   "done), always (fail where it can't) or never")
      ->check(CLI::IsMember({"auto", "always", "never"}))
      ->option_text("auto|always|never");
  command->add_flag("--follow-links", arguments->options.follow_links,
                    "Copy files without tensors that are links out of the folder, instead of failing");
  command->add_option("--threads", arguments->options.threads, "Threads that copy; default: chosen from the machine")
      ->option_text("N")
      ->check(CLI::Range(1, 256));
  command->add_flag("--json", arguments->json, "Print the report as JSON");
  command->add_flag("-q,--quiet", arguments->quiet, "Print errors only");
  command->callback([arguments, action] { *action = [arguments] { return Run(*arguments); }; });
}

}  // namespace quantport::cli
