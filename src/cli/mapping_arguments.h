// What every command that needs a mapping takes, to say which.
#pragma once

#include <string>

#include "cli/commands.h"
#include "quantport/quantport.h"

namespace quantport::cli {

struct MappingArguments {
  std::string file;
  std::string transformers;
  std::string architecture;

  MappingOptions Options() const;
};

// Adds --transformers, --mapping and --architecture; `arguments` must outlive the parsing.
void AddMappingArguments(CLI::App* command, MappingArguments* arguments);

}  // namespace quantport::cli
