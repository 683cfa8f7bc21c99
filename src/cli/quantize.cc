#include "quantport/quantize.h"

#include <fmt/format.h>

#include <memory>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/exit_status.h"
#include "cli/interrupt.h"
#include "cli/mapping_arguments.h"
#include "cli/size.h"
#include "cli/terminal.h"
#include "cli/writing.h"

namespace quantport::cli {
namespace {

// What quantize and dequantize have in common.
struct WriteArguments {
  std::string input;
  std::string output;
  std::string reflink = "auto";
  std::string max_shard_size;
  bool repair_index = false;
  bool follow_links = false;
  bool all_files = false;
  int threads = 0;
  bool json = false;
  bool quiet = false;
};

struct Arguments : WriteArguments {
  std::string recipe;
  MappingArguments mapping;
  std::vector<std::string> recipe_paths;
  std::string kv_cache;
  std::string calibration;
  std::string arithmetic = "cpu";
  bool allow_nonfinite = false;
  bool bit_exact_zeros = false;
  bool quantize_mtp = false;
  bool plan = false;
  bool list = false;
};

template <typename Options>
void SetCommon(const WriteArguments& arguments, Options* options) {
  options->input = arguments.input;
  options->output = arguments.output;
  options->repair_index = arguments.repair_index;
  options->follow_links = arguments.follow_links;
  options->all_files = arguments.all_files;
  options->reflink = ReflinkOf(arguments.reflink);
  options->threads = arguments.threads;
  if (!arguments.max_shard_size.empty()) options->max_shard_bytes = ParseSize(arguments.max_shard_size);
}

void PrintReport(const QuantizeReport& report) {
  PrintNotes(report.notes, "note");
  PrintWarnings(report.warnings);
  fmt::print("{}", QuantizeText(report));
  fmt::print("{}", QuantizeSummary(report));
}

// Runs `write` with a progress line, and prints what came of it.
template <typename Options, typename Write>
int Carry(Options* options, const WriteArguments& arguments, const Write& write) {
  options->cancel = CatchInterrupts();
  auto progress = std::make_unique<ProgressLine>(arguments.quiet || arguments.json);
  options->progress = [&](uint64_t bytes, uint64_t total) { progress->Update(bytes, total); };
  auto report = write(*options);
  progress.reset();
  if (!report) return FailWriting(report.errors(), false, arguments.json);
  if (arguments.json) {
    fmt::print("{}", QuantizeJson(*report));
  } else if (!arguments.quiet) {
    PrintReport(*report);
  } else {
    PrintLeftOut(report->left_out);
  }
  return kDone;
}

int RunQuantize(const Arguments& arguments) {
  if (arguments.list) {
    fmt::print("{}", arguments.json ? RecipesJson() : RecipesText());
    return kDone;
  }
  if (arguments.input.empty()) return Usage("MODEL is needed");
  if (arguments.recipe.empty()) return Usage("--recipe NAME or FILE is needed; --list-recipes names those built in");
  if (arguments.output.empty() && !arguments.plan) return Usage("-o OUT is needed (or --plan, which writes nothing)");
  QuantizeOptions options;
  SetCommon(arguments, &options);
  options.mapping = arguments.mapping.Options();
  options.recipe.name = arguments.recipe;
  for (const std::string& folder : arguments.recipe_paths) options.recipe.folders.emplace_back(folder);
  if (!arguments.kv_cache.empty()) options.recipe.kv_cache = arguments.kv_cache;
  if (!arguments.calibration.empty()) options.calibration = arguments.calibration;
  options.arithmetic = arguments.arithmetic == "cuda" ? QuantizeArithmetic::kCuda : QuantizeArithmetic::kCpu;
  options.allow_nonfinite = arguments.allow_nonfinite;
  options.bit_exact_zeros = arguments.bit_exact_zeros;
  options.quantize_mtp = arguments.quantize_mtp;
  if (!arguments.plan) return Carry(&options, arguments, Quantize);
  auto report = PlanQuantize(options);
  if (!report) return FailWriting(report.errors(), false, arguments.json);
  fmt::print("{}", arguments.json ? QuantizeJson(*report) : QuantizePlanText(*report));
  if (arguments.json || arguments.quiet) return kDone;
  PrintNotes(report->notes, "note");
  PrintWarnings(report->warnings);
  fmt::print("{} would become {} in {} files\n", HumanSize(report->bytes_before), HumanSize(report->bytes),
             report->files);
  return kDone;
}

int RunDequantize(const WriteArguments& arguments) {
  DequantizeOptions options;
  SetCommon(arguments, &options);
  return Carry(&options, arguments, Dequantize);
}

void AddWriteOptions(CLI::App* command, WriteArguments* arguments) {
  command
      ->add_option("--max-shard-size", arguments->max_shard_size,
                   "Write new shards of at most this size, for example 5GB; default: the model's shards")
      ->option_text("SIZE")
      ->check([](const std::string& text) { return ParseSize(text) ? std::string() : "not a size: " + text; });
  command
      ->add_option("--reflink", arguments->reflink,
                   "Let what is left alone share blocks with the model's files, on xfs and btrfs: auto (where it can "
                   "be done), always (fail where it can't) or never")
      ->check(CLI::IsMember({"auto", "always", "never"}))
      ->option_text("auto|always|never");
  command->add_flag("--repair-index", arguments->repair_index,
                    "Rebuild an index that contradicts the headers, instead of failing");
  command->add_flag("--follow-links", arguments->follow_links,
                    "Copy files without tensors that are links out of the folder, instead of failing");
  command->add_flag("--all-files", arguments->all_files,
                    "Copy safetensors files that are no shards of the checkpoint, such as adapters, along");
  command
      ->add_option("--threads", arguments->threads,
                   "Threads that read, compute and write; default: chosen from the "
                   "machine")
      ->option_text("N")
      ->check(CLI::Range(1, 256));
  command->add_flag("--json", arguments->json, "Print the report as JSON, every weight included");
  command->add_flag("-q,--quiet", arguments->quiet, "Print errors only");
}

void AddRecipeOptions(CLI::App* command, Arguments* arguments) {
  command
      ->add_option("--recipe", arguments->recipe,
                   "A recipe or preset of ModelOpt's by name, or a recipe file in its format")
      ->option_text("NAME|FILE");
  command
      ->add_option("--recipe-path", arguments->recipe_paths,
                   "A folder with recipes of your own, looked into before the built-in ones; may be repeated")
      ->option_text("DIR")
      ->allow_extra_args(false);
  command
      ->add_option("--kv-cache", arguments->kv_cache,
                   "What becomes of the KV cache, instead of what the recipe says: fp8_cast, nvfp4_cast, ..., or none")
      ->option_text("NAME|none");
  command
      ->add_option("--calibration", arguments->calibration,
                   "safetensors with F32 scalars <module>.input_amax, <attention>.k_amax and .v_amax, in hub or "
                   "in-memory names: needed where activations have static scales")
      ->option_text("FILE");
  command->add_option("--arithmetic", arguments->arithmetic, "Whose bits to reproduce: ModelOpt's on a cpu, or on cuda")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->option_text("cpu|cuda");
  command->add_flag("--allow-nonfinite", arguments->allow_nonfinite, "Quantize weights with NaN or infinity as well");
  command->add_flag("--bit-exact-zeros", arguments->bit_exact_zeros,
                    "Give weights that are all zero ModelOpt's NaN scales, instead of finite ones");
  command->add_flag("--quantize-mtp", arguments->quantize_mtp,
                    "Leave draft (MTP) layers to the recipe too, instead of leaving them as they are");
  command->add_flag("--list-recipes", arguments->list, "Name the built-in recipes, presets and KV presets");
  command->add_flag("--plan", arguments->plan, "Dry run: print what the recipe would do to each module, write nothing");
}

}  // namespace

void AddQuantize(CLI::App* app, Action* action) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command =
      app->add_subcommand("quantize", "Quantize a hub checkpoint by a recipe of ModelOpt's, file to file");
  command->add_option("MODEL", arguments->input, "Folder of the hub checkpoint: config.json and safetensors files");
  command->add_option("-o,--output", arguments->output, "Folder to write; must not exist, or be empty")
      ->option_text("OUT");
  AddRecipeOptions(command, arguments.get());
  AddMappingArguments(command, &arguments->mapping);
  AddWriteOptions(command, arguments.get());
  command->callback([arguments, action] { *action = [arguments] { return RunQuantize(*arguments); }; });
}

void AddDequantize(CLI::App* app, Action* action) {
  auto arguments = std::make_shared<WriteArguments>();
  CLI::App* command =
      app->add_subcommand("dequantize", "Write a quantized checkpoint's weights as plain numbers again");
  command
      ->add_option("MODEL", arguments->input, "Folder of the quantized checkpoint: config.json and safetensors files")
      ->required();
  command->add_option("-o,--output", arguments->output, "Folder to write; must not exist, or be empty")
      ->option_text("OUT")
      ->required();
  AddWriteOptions(command, arguments.get());
  command->callback([arguments, action] { *action = [arguments] { return RunDequantize(*arguments); }; });
}

}  // namespace quantport::cli
