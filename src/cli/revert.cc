#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cli/commands.h"
#include "cli/exit_status.h"
#include "cli/interrupt.h"
#include "cli/mapping_arguments.h"
#include "cli/size.h"
#include "cli/terminal.h"
#include "cli/writing.h"
#include "quantport/quantport.h"

namespace quantport::cli {
namespace {

// What became of files that were changed in place.
std::string_view ChangeWords(std::string_view method) {
  if (method == "untouched") return "left as they are";
  if (method == "header") return "given a new header in the old one's room";
  if (method == "inserted") return "given a longer header by inserting blocks";
  if (method == "cloned") return "replaced by a clone that shares its blocks";
  if (method == "removed") return "removed: other files hold all of its tensors";
  return "rewritten, which hold no tensors";
}

// Of revert and apply; apply leaves out what only a reversal has.
struct Arguments {
  RevertOptions options;
  bool apply = false;
  std::string reflink = "auto";
  std::string experts = "expanded";
  std::string merge_scales = "refuse";
  std::string reference;
  bool no_reference = false;
  MappingArguments mapping;
  std::string on_unsupported = "fail";
  std::string max_shard_size;
  std::string output;
  bool plan = false;
  bool json = false;
  bool quiet = false;
};

void PrintRescaled(const std::vector<RescaledTensor>& rescaled) {
  constexpr size_t kShown = 50;
  for (size_t i = 0; i < std::min(rescaled.size(), kShown); ++i) {
    const RescaledTensor& tensor = rescaled[i];
    PrintNotes(
        {fmt::format("{} is under a common {}: {} of {} elements rounded again, relative error {:.2e} rms, {:.2e} "
                     "at most",
                     tensor.name, tensor.scalar, tensor.changed, tensor.elements, tensor.rms_relative,
                     tensor.largest_relative)},
        "note");
  }
  if (rescaled.size() > kShown)
    fmt::print(stderr, "note:   and {} more (--json lists all)\n", rescaled.size() - kShown);
}

// Why the hub has a tensor that the export lacks.
std::string_view DroppedReason(std::string_view kind) {
  if (kind == "tied") return "tied: the same as another tensor";
  if (kind == "buffer") return "a buffer that the model computes";
  if (kind == "mtp") return "of the multi-token prediction layers";
  return "no reason is known";
}

void PrintDropped(const std::vector<DroppedTensor>& dropped) {
  constexpr size_t kShown = 200;
  if (dropped.empty()) return;
  fmt::print(stderr, "note: {} tensors are only in the reference:\n", dropped.size());
  const auto draft = [](const DroppedTensor& tensor) { return tensor.kind == "mtp"; };
  const auto drafts = static_cast<size_t>(std::count_if(dropped.begin(), dropped.end(), draft));
  size_t shown = 0;
  size_t hidden = 0;
  bool draft_shown = false;
  for (const DroppedTensor& tensor : dropped) {
    // Draft layers come and go as a whole.
    if (draft(tensor) && std::exchange(draft_shown, true)) continue;
    if (++shown > kShown) {
      ++hidden;
      continue;
    }
    const std::string more = draft(tensor) && drafts > 1 ? fmt::format(" and {} others", drafts - 1) : "";
    PrintNotes({fmt::format("{}{} ({}{})", tensor.name, more, DroppedReason(tensor.kind),
                            tensor.carried ? "; carried over" : "")},
               "note:   only in the reference");
  }
  if (hidden > 0) fmt::print(stderr, "note:   and {} more (--json lists all)\n", hidden);
}

// One line for each way in which files were changed, and one for each reason to copy.
void PrintChanges(const std::vector<FileChangeReport>& changes) {
  std::map<std::string, size_t> methods;
  std::map<std::string, std::vector<std::string>> copied;
  for (const FileChangeReport& change : changes) {
    if (change.method == "copied") {
      copied[change.reason].push_back(change.name);
    } else {
      ++methods[change.method];
    }
  }
  for (const auto& [method, count] : methods) {
    fmt::print(stderr, "note: {} {} {}\n", count, count == 1 ? "file was" : "files were", ChangeWords(method));
  }
  for (const auto& [reason, names] : copied) {
    PrintNotes({fmt::format("{} of the files, {}{}, copied: {}", names.size(), names.front(),
                            names.size() > 1 ? ", ..." : "", reason)},
               "note");
  }
}

void PrintReport(const RevertReport& report) {
  PrintNotes(report.notes, "note");
  if (report.rules_differ > 0) {
    fmt::print(stderr, "note: for {} tensors {} name is taken where the rules alone would give another{}\n",
               report.rules_differ,
               report.published.empty() ? std::string("the reference's") : report.published + "'s published",
               report.published.empty() ? "" : " (--by-rules takes those of the rules)");
    PrintNotes(report.rules_differ_examples, "note:   for example");
  }
  PrintChanges(report.changed_files);
  PrintDropped(report.dropped);
  PrintRescaled(report.rescaled);
  PrintErrors(report.unsupported);
  PrintWarnings(report.warnings);
}

Result<RevertReport> RunApply(const RevertOptions& options) {
  ApplyOptions apply;
  apply.input = options.input;
  apply.output = options.output;
  apply.mapping = options.mapping;
  apply.merge_scales = options.merge_scales;
  apply.repair_index = options.repair_index;
  apply.follow_links = options.follow_links;
  apply.all_files = options.all_files;
  apply.max_shard_bytes = options.max_shard_bytes;
  apply.reflink = options.reflink;
  apply.threads = options.threads;
  apply.progress = options.progress;
  apply.cancel = options.cancel;
  return Apply(apply);
}

int PrintPlan(const Arguments& arguments) {
  auto plan = PlanRevert(arguments.options);
  if (!plan) return FailWriting(plan.errors(), arguments.options.in_place, arguments.json);
  fmt::print("{}", arguments.json ? PlanJson(*plan) : PlanText(*plan));
  if (!arguments.quiet && !arguments.json) PrintReport(plan->revert);
  return kDone;
}

int Run(Arguments& arguments) {
  RevertOptions& options = arguments.options;
  if (!arguments.plan && arguments.output.empty() && !options.in_place) {
    fmt::print(stderr, "error: -o OUT is needed (or --in-place, or --plan, which writes nothing)\n");
    return kUsage;
  }
  options.output = arguments.output;
  if (!arguments.reference.empty()) options.reference = arguments.reference;
  options.find_reference = !arguments.no_reference;
  options.mapping = arguments.mapping.Options();
  options.on_unsupported = arguments.on_unsupported == "keep-names" ? OnUnsupported::kKeepNames : OnUnsupported::kFail;
  options.experts = arguments.experts == "stacked" ? ExpertForm::kStacked : ExpertForm::kExpanded;
  options.merge_scales = arguments.merge_scales == "max" ? MergeScales::kMax : MergeScales::kRefuse;
  options.reflink = ReflinkOf(arguments.reflink);
  if (!arguments.max_shard_size.empty()) options.max_shard_bytes = ParseSize(arguments.max_shard_size);
  if (arguments.plan) return PrintPlan(arguments);

  options.cancel = CatchInterrupts();
  auto progress = std::make_unique<ProgressLine>(arguments.quiet || arguments.json);
  options.progress = [&](uint64_t done, uint64_t total) { progress->Update(done, total); };
  auto report = arguments.apply ? RunApply(options) : Revert(options);
  progress.reset();
  if (!report) return FailWriting(report.errors(), arguments.options.in_place, arguments.json);
  if (arguments.json) {
    fmt::print("{}", ReportJson(*report));
  } else if (!arguments.quiet) {
    PrintReport(*report);
    fmt::print("{}", RevertText(*report));
  } else if (!options.in_place) {
    PrintLeftOut(report->left_out);
  }
  return report->outcome == RevertOutcome::kKeptNames ? kNamesKept : kDone;
}

// What revert and apply have in common.
void AddWriteOptions(CLI::App* command, Arguments* arguments) {
  command
      ->add_option("--merge-scales", arguments->merge_scales,
                   "When weights that become one have different per-tensor scales: refuse, or max (put all under the "
                   "largest; values are rounded again and the error is reported)")
      ->check(CLI::IsMember({"refuse", "max"}))
      ->option_text("refuse|max");
  command
      ->add_option("--max-shard-size", arguments->max_shard_size,
                   "Write new shards of at most this size, for example 5GB; default: the export's shards")
      ->option_text("SIZE")
      ->check([](const std::string& text) { return ParseSize(text) ? std::string() : "not a size: " + text; });
  command
      ->add_option("--reflink", arguments->reflink,
                   "Let files share blocks with those they are made from, on xfs and btrfs: auto (where it can be "
                   "done), always (fail where it can't) or never")
      ->check(CLI::IsMember({"auto", "always", "never"}))
      ->option_text("auto|always|never");
  command->add_flag("--repair-index", arguments->options.repair_index,
                    "Rebuild an index that contradicts the headers, instead of failing");
  command->add_flag("--follow-links", arguments->options.follow_links,
                    "Copy files without tensors that are links out of the folder, instead of failing");
  command->add_flag("--all-files", arguments->options.all_files,
                    "Copy safetensors files that are no shards of the checkpoint, such as adapters, along");
  AddMappingArguments(command, &arguments->mapping);
  command->add_option("--threads", arguments->options.threads, "Threads that copy; default: chosen from the machine")
      ->option_text("N")
      ->check(CLI::Range(1, 256));
  command->add_flag("--json", arguments->json, "Print the report as JSON");
  command->add_flag("-q,--quiet", arguments->quiet, "Print errors only");
}

}  // namespace

void AddRevert(CLI::App* app, Action* action) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command =
      app->add_subcommand("revert", "Give a quantized export the names of its hub checkpoint, scales included");
  command->add_option("EXPORT", arguments->options.input, "Folder of the export: config.json and safetensors files")
      ->required();
  command->add_option("-o,--output", arguments->output, "Folder to write; must not exist, or be empty")
      ->option_text("OUT");
  command
      ->add_flag("--in-place", arguments->options.in_place,
                 "Change the export itself: new headers over data that stays where it is. All files change or none; "
                 "quantport recover finishes or undoes what a crash interrupts")
      ->option_text("Excludes: --output --max-shard-size")  // CLI11 itself would order them by address
      ->excludes("--output");
  command
      ->add_flag(
          "--force", arguments->options.detach_links,
          "With --in-place: replace files that are links or have several names (hub caches), instead of failing; "
          "what the other names show stays as it is")
      ->needs("--in-place");
  command
      ->add_option("--reference", arguments->reference,
                   "The hub checkpoint's folder, or just its model.safetensors.index.json: its names decide")
      ->option_text("HUB");
  command
      ->add_flag("--no-reference", arguments->no_reference,
                 "Don't look for the hub checkpoint in the local Hugging Face cache (config.json's _name_or_path, the "
                 "model card's base_model)")
      ->excludes("--reference");
  command->add_flag(
      "--by-rules", arguments->options.by_rules,
      "Without --reference: take the names that the mapping's rules give, where they are undecided too, and "
      "leave aside what is known of published names");
  command
      ->add_option(
          "--experts", arguments->experts,
          "Experts that the hub keeps in one tensor and the export one by one: expanded (2-D linears below the "
          "hub's container, which engines load) or stacked (the hub's tensors, scales as [E, ...])")
      ->check(CLI::IsMember({"expanded", "stacked"}))
      ->option_text("expanded|stacked");
  command
      ->add_flag("--carry-missing", arguments->options.carry_missing,
                 "Bring over what only the reference has (multi-token prediction layers, buffers), as it is there, and "
                 "exclude its modules from quantization in the configs")
      ->needs("--reference");
  command->add_flag("--strict", arguments->options.strict, "Names that only the reference has are an error");
  command
      ->add_option("--on-unsupported", arguments->on_unsupported,
                   "When a transform can't be carried through: fail (write nothing) or keep-names (write in-memory "
                   "names, exit status 3)")
      ->check(CLI::IsMember({"fail", "keep-names"}))
      ->option_text("fail|keep-names");
  command->add_flag("--plan", arguments->plan,
                    "Dry run: print every output tensor and where its bytes come from, write nothing");
  AddWriteOptions(command, arguments.get());
  command->get_option("--in-place")->excludes("--max-shard-size");
  command->callback([arguments, action] { *action = [arguments] { return Run(*arguments); }; });
}

void AddApply(CLI::App* app, Action* action) {
  auto arguments = std::make_shared<Arguments>();
  arguments->apply = true;
  CLI::App* command = app->add_subcommand(
      "apply", "Give a hub checkpoint the names and shapes that transformers has in memory: what revert undoes");
  command
      ->add_option("HUB", arguments->options.input, "Folder of the hub checkpoint: config.json and safetensors files")
      ->required();
  command->add_option("-o,--output", arguments->output, "Folder to write; must not exist, or be empty")
      ->option_text("OUT")
      ->required();
  AddWriteOptions(command, arguments.get());
  command->callback([arguments, action] { *action = [arguments] { return Run(*arguments); }; });
}

}  // namespace quantport::cli
