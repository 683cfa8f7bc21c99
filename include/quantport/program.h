// The command line program as a function, in a library of its own (quantport::cli): it prints to the standard streams
// and takes over SIGINT and SIGTERM while a command runs.
#pragma once

namespace quantport {

// Parses the command line, runs the command and returns the exit status of docs/cli.md. argv[0] is not looked at.
int RunProgram(int argc, char** argv);

}  // namespace quantport
