#include <sys/resource.h>

#include <CLI/CLI.hpp>

#include "cli/commands.h"
#include "cli/exit_status.h"
#include "quantport/quantport.h"

namespace quantport::cli {
namespace {

// A 2 TB checkpoint has several hundred shards, and both sides of a copy are open at once.
void AllowManyOpenFiles() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)setrlimit(RLIMIT_NOFILE, &limit);
}

int Main(int argc, char** argv) {
  CLI::App app("quantport: names, scales and configs of quantized checkpoints, on the files", "quantport");
  app.set_version_flag("--version", std::string(Version()));
  app.require_subcommand(1);
  app.footer("Exit status: 0 done, 1 failed, 2 usage, 3 names kept (--on-unsupported keep-names), 130 interrupted.");
  Action action;
  AddRevert(&app, &action);
  AddApply(&app, &action);
  AddVerify(&app, &action);
  AddInspect(&app, &action);
  AddDiff(&app, &action);
  AddRules(&app, &action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kDone : kUsage;
  }
  AllowManyOpenFiles();
  return action();
}

}  // namespace
}  // namespace quantport::cli

int main(int argc, char** argv) { return quantport::cli::Main(argc, argv); }
