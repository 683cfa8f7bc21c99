#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "cli/commands.h"
#include "cli/exit_status.h"
#include "cli/terminal.h"
#include "quantport/quantport.h"

namespace quantport::cli {
namespace {

struct Arguments {
  std::filesystem::path folder;
  bool undo = false;
  bool json = false;
  bool quiet = false;
};

int Run(const Arguments& arguments) {
  auto report = Recover(arguments.folder, arguments.undo);
  if (!report) return Fail(report.errors(), arguments.json);
  if (arguments.json) {
    fmt::print("{}", RecoverJson(*report));
  } else if (!arguments.quiet) {
    fmt::print("{}", RecoverText(*report));
  }
  return kDone;
}

}  // namespace

void AddRecover(CLI::App* app, Action* action) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command =
      app->add_subcommand("recover", "Finish a revert --in-place that a crash interrupted, or take it back");
  command->add_option("DIR", arguments->folder, "Folder of the checkpoint that was being changed")->required();
  command->add_flag("--undo", arguments->undo, "Take the change back instead of finishing it");
  command->add_flag("--json", arguments->json, "Print the outcome as JSON");
  command->add_flag("-q,--quiet", arguments->quiet, "Print errors only");
  command->callback([arguments, action] { *action = [arguments] { return Run(*arguments); }; });
}

}  // namespace quantport::cli
