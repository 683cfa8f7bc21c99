#include "cli/mapping_arguments.h"

namespace quantport::cli {

MappingOptions MappingArguments::Options() const {
  MappingOptions options;
  if (!file.empty()) options.mapping_file = file;
  if (!transformers.empty()) options.transformers_version = transformers;
  if (!architecture.empty()) options.architecture = architecture;
  return options;
}

void AddMappingArguments(CLI::App* command, MappingArguments* arguments) {
  CLI::Option* version =
      command
          ->add_option("--transformers", arguments->transformers,
                       "Transformers version whose built-in mapping applies; default: by config.json")
          ->option_text("VERSION");
  command
      ->add_option("--mapping", arguments->file,
                   "Mapping file of another transformers version or a private model, instead of a built-in one")
      ->option_text("FILE")
      ->excludes(version);
  command->add_option("--architecture", arguments->architecture, "Model class, instead of config.json's")
      ->option_text("CLASS");
}

}  // namespace quantport::cli
