// The commands: each adds itself to the parser and returns the exit status when it was chosen.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace quantport::cli {

// Filled by the command that the command line chose.
using Action = std::function<int()>;

void AddRevert(CLI::App* app, Action* action);
void AddApply(CLI::App* app, Action* action);
void AddRepair(CLI::App* app, Action* action);
void AddRecover(CLI::App* app, Action* action);
void AddVerify(CLI::App* app, Action* action);
void AddQuantize(CLI::App* app, Action* action);
void AddDequantize(CLI::App* app, Action* action);
void AddDiff(CLI::App* app, Action* action);
void AddInspect(CLI::App* app, Action* action);
void AddRules(CLI::App* app, Action* action);

}  // namespace quantport::cli
