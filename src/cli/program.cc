#include "quantport/program.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <new>
#include <string>
#include <system_error>
#include <vector>

#include "cli/commands.h"
#include "cli/exit_status.h"
#include "cli/interrupt.h"
#include "quantport/quantport.h"

namespace quantport::cli {
namespace {

std::string UsageError(const CLI::App* app, const CLI::Error& error) {
  // CLI11 misses a subcommand before it looks at what stands in its place.
  const std::vector<std::string> rest = app->remaining();
  const bool misspelt = app->get_subcommands().empty() && !rest.empty() && !rest[0].starts_with("-");
  const std::string what = misspelt ? fmt::format("there is no command {}", rest[0]) : error.what();
  return fmt::format("error: {}\nRun with --help for more information.\n", what);
}

// Results that a full disk or a closed pipe swallowed must not look like a success.
int RunAction(const Action& action) {
  int status = kFailed;
  int code = 0;
  try {
    status = action();
    if (std::fflush(stdout) != 0) code = errno;
  } catch (const std::system_error& error) {  // fmt::print's, on standard output or standard error
    code = error.code().value();
  } catch (const std::bad_alloc&) {
    std::fputs("error: there is not enough memory\n", stderr);
    return kFailed;
  }
  if (code == 0) return status;
  EndByClosedPipe();
  const std::string message = fmt::format("error: can't print: {}\n", std::generic_category().message(code));
  std::fwrite(message.data(), 1, message.size(), stderr);
  return kFailed;
}

int Main(int argc, char** argv) {
  CLI::App app("quantport: names, scales and configs of quantized checkpoints, on the files", "quantport");
  app.set_version_flag("--version", std::string(Version()));
  app.require_subcommand(1);
  app.failure_message(UsageError);
  app.footer("Exit status: 0 done, 1 failed, 2 usage, 3 names kept (--on-unsupported keep-names), 130 interrupted.");
  Action action;
  AddRevert(&app, &action);
  AddApply(&app, &action);
  AddRepair(&app, &action);
  AddRecover(&app, &action);
  AddQuantize(&app, &action);
  AddDequantize(&app, &action);
  AddVerify(&app, &action);
  AddInspect(&app, &action);
  AddDiff(&app, &action);
  AddRules(&app, &action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kDone : kUsage;
  }
  return RunAction(action);
}

}  // namespace
}  // namespace quantport::cli

int quantport::RunProgram(int argc, char** argv) { return cli::Main(argc, argv); }
