// The public interface of quantport: checkpoints of quantized language models, by their files.
//
// Nothing here prints, exits or throws; every function returns its result or every problem it found. One exception
// passes: what a caller's own `progress` function throws stops the work and removes what was written, and is then
// thrown by the function that the caller called. Paths name folders that hold a config.json and safetensors files,
// single or sharded with an index.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "quantport/dtype.h"
#include "quantport/engine.h"
#include "quantport/error.h"
#include "quantport/warning.h"

namespace quantport {

// The library's version, "0.1.0".
std::string_view Version();

// ---- which model -------------------------------------------------------------------------------------------------

// Where the names' mapping comes from. By default: config.json's architecture, in the built-in mapping of the
// transformers version that config.json states, or the nearest older one.
struct MappingOptions {
  std::optional<std::filesystem::path> mapping_file;  // another transformers version, or a private model
  std::optional<std::string> mapping_json;            // the text of such a file; one of the two
  std::optional<std::string> transformers_version;    // a built-in one, "5.17.0"; not beside a mapping of one's own
  std::optional<std::string> architecture;            // instead of config.json's `architectures`
};

// One sub-model of a model, as transformers composes it.
struct SubModelReport {
  std::string path;  // "" for the root
  std::string class_name;
  std::string model_type;
};

// The mapping that applies to a checkpoint. `json` is the whole of it: {"architecture", "mapping", "pattern_rules",
// "submodels", "transforms"}, and "unmapped" where nothing is known.
struct RulesReport {
  std::string architecture;
  std::string mapping;         // "transformers 5.17.0"
  std::string mapping_reason;  // why that one: "config.json states 5.17.0"
  std::vector<SubModelReport> submodels;
  std::vector<std::string> transforms;  // a line each, in load order
  std::string unmapped;                 // why nothing is known of the model: there is no mapping then; else ""
  std::vector<std::string> notes;
  std::string json;
};

// The transformers versions whose mappings are built in, oldest first.
std::vector<std::string> BuiltInTransformersVersions();

// Errors: kIo, kInvalidConfig, kInvalidMapping, kUnknownVersion, kUnknownArchitecture.
Result<RulesReport> Rules(const std::filesystem::path& checkpoint, const MappingOptions& options = {});

// One transform at work on a name.
struct NameStep {
  std::string transform;  // as in RulesReport::transforms
  std::string pattern;    // of it, the one that matched
  std::string before;
  std::string after;
};

// What the mapping makes of one name, taken for an in-memory name (saved) and for a hub name (loaded). Names that no
// transform fires on have no steps.
struct ExplainedName {
  std::string name;
  std::string parameter;  // of one expert's linear: the stacked parameter it is a part of, whose name is saved
  std::vector<NameStep> saved;
  std::vector<NameStep> loaded;
};

// Guards of grouped renames count as seen where some name of the checkpoint matches them. Errors: as Rules.
Result<std::vector<ExplainedName>> ExplainNames(const std::filesystem::path& checkpoint,
                                                const std::vector<std::string>& names,
                                                const MappingOptions& options = {});

// Where the reference's names and the rules alone differ.
struct RuleComparison {
  struct Difference {
    std::string in_memory;
    std::string by_reference;
    std::string by_rule;
  };
  bool already_hub = false;  // the checkpoint has the reference's names as it is
  std::vector<Difference> differences;
  std::vector<std::string> unused;  // transforms that no name of the reference needs
};

// Errors: as Revert.
Result<RuleComparison> CompareRules(const std::filesystem::path& checkpoint, const std::filesystem::path& reference,
                                    const MappingOptions& mapping = {});
// The mapping, or what it makes of `names` where there are any, and the comparison where it is not null.
std::string RulesText(const RulesReport& rules, const std::vector<ExplainedName>& names,
                      const RuleComparison* comparison);
std::string RulesJson(const RulesReport& rules, const std::vector<ExplainedName>& names,
                      const RuleComparison* comparison);

// ---- revert: in-memory names to hub names ------------------------------------------------------------------------

// What to do when a transform can't be carried through a stored layout.
enum class OnUnsupported {
  kFail,       // write nothing
  kKeepNames,  // write the export with its in-memory names, in tensors and configs alike, and warn
};

// How the experts of a container that the hub keeps in one tensor are written, where the export has them one by one.
enum class ExpertForm {
  kExpanded,  // 2-D linears "<container>.<i>.<linear>" below the hub's container: what inference engines load
  kStacked,   // the hub's own tensors, with their scales as [E, ...]
};

// What to do when weights that become one have different per-tensor scales.
enum class MergeScales {
  kRefuse,
  kMax,  // the largest for all; what was stored under another is rounded again, and the error reported
};

// Whether output files share blocks with the files they are made from, on file systems that can (xfs, btrfs).
enum class Reflink {
  kAuto,    // where it can be done; else bytes are copied
  kAlways,  // an error where it can't
  kNever,
};

struct RevertOptions {
  std::filesystem::path input;   // the quantized export
  std::filesystem::path output;  // must not exist, or be an empty folder; not with in_place
  // Change the export itself: new headers over data that stays where it is. A file that can't be changed so is written
  // anew and takes the old one's place. All files change or none; an interrupted run leaves a journal (see Recover).
  bool in_place = false;
  // With in_place: a file that is a symbolic link, or has several names, gets replaced by one of its own, and what the
  // others name stays as it is. Otherwise such a file is an error.
  bool detach_links = false;
  Reflink reflink = Reflink::kAuto;
  std::optional<std::filesystem::path> reference;  // the hub checkpoint, or its model.safetensors.index.json
  // Without a reference, look for the hub checkpoint in the local Hugging Face cache, by config.json's _name_or_path
  // and the model card's base_model. Never the network. One that contradicts the export is left aside.
  bool find_reference = true;
  // Without a reference: take the names that the mapping's rules give, decided or not, and look for nothing else.
  // Otherwise names that stay undecided are kUndecidedNames.
  bool by_rules = false;
  MappingOptions mapping;
  OnUnsupported on_unsupported = OnUnsupported::kFail;
  ExpertForm experts = ExpertForm::kExpanded;
  MergeScales merge_scales = MergeScales::kRefuse;
  bool strict = false;  // names that only the reference has are errors
  // Bring what only the reference has over, in its own precision, and exclude its modules in the configs. Tied weights
  // stay out. Needs a reference with files.
  bool carry_missing = false;
  bool repair_index = false;  // rebuild an index that contradicts the headers
  bool follow_links = false;  // copy files without tensors that are links out of the export's folder
  bool all_files = false;     // copy safetensors files that are no shards of the checkpoint, such as adapters, along
  std::optional<uint64_t> max_shard_bytes;  // new shards of at most so many bytes; default: the export's shards
  int threads = 0;                          // 0: chosen from the machine
  std::function<void(uint64_t done, uint64_t total)> progress;  // bytes written; never called by two threads at once
  const std::atomic<bool>* cancel = nullptr;                    // set it from outside to stop; the result is kCancelled
};

enum class RevertOutcome {
  kReverted,   // hub names
  kApplied,    // in-memory names, by Apply
  kCopied,     // the export had hub names, or its model has no mapping: a plain copy
  kKeptNames,  // unsupported: in-memory names kept, as asked for
};

// What re-expressing a tensor under the common scale cost, over the elements that were rounded again.
struct RescaledTensor {
  std::string name;             // of the result
  std::string scalar;           // leaf of the merged scalar, for example "weight_scale_2"
  uint64_t elements = 0;        // values, or block scales
  uint64_t changed = 0;         // of them, those that the common scale does not represent exactly
  double rms_relative = 0;      // root of sum of squared errors over sum of squares
  double largest_relative = 0;  // of one element
};

// A tensor that the hub checkpoint has and the export lacks.
struct DroppedTensor {
  std::string name;
  std::string kind;      // "tied", "buffer", "mtp" (multi-token prediction layers) or "other"
  bool carried = false;  // brought over, with its scales
};

// What became of one file of a checkpoint that was changed in place.
struct FileChangeReport {
  std::string name;
  // "untouched", "header" (rewritten in its room), "inserted" (blocks put in for a longer header), "cloned" (a new file
  // that shares the old one's blocks), "copied" (a new file), "removed" or "config" (a file without tensors).
  std::string method;
  std::string reason;  // of "copied": why it could not be changed where it lies
};

struct RevertReport {
  RevertOutcome outcome = RevertOutcome::kReverted;
  std::string architecture;
  std::string mapping;  // the one used: "transformers 5.17.0"
  uint64_t input_tensors = 0;
  uint64_t output_tensors = 0;
  uint64_t renamed = 0;  // tensors of the export whose name changed
  uint64_t cut = 0;      // weights of the export that were split, un-stacked or fused
  uint64_t bytes = 0;    // of the files written
  uint64_t files = 0;
  uint64_t cloned_bytes = 0;                    // of them shared with the files they were made from
  std::vector<FileChangeReport> changed_files;  // in place only
  std::vector<std::string> left_out;            // safetensors files that are no shards of the checkpoint
  std::vector<std::string> notes;               // what was done beyond the obvious
  std::vector<Warning> warnings;                // what may not be what you want
  Errors unsupported;                           // with kKeptNames: why
  // Names that two hub names would load to, and the transforms that it is due to; a reference settles which one the hub
  // has.
  uint64_t ambiguous = 0;
  std::vector<std::string> ambiguous_examples;
  std::vector<std::string> ambiguous_transforms;
  // The hub whose published names are built in and were taken where the rules alone would have given another result; ""
  // where none were.
  std::string published;
  // With a reference: names for which the rules alone would have given another result.
  uint64_t rules_differ = 0;
  std::vector<std::string> rules_differ_examples;
  std::vector<std::string> only_in_reference;  // hub names that nothing of the export became
  std::vector<DroppedTensor> dropped;          // the same by kind, those that were carried over included
  std::vector<RescaledTensor> rescaled;        // with MergeScales::kMax; filled when data is written
};

// Memory: headers, names and a buffer of 8 MiB a thread; never the size of a tensor or file.
// Errors: any kind. Nothing is left at `output` but a complete result; in place, the export is as it was, or the errors
// hold a kUnfinishedChange.
Result<RevertReport> Revert(const RevertOptions& options);

enum class RecoverOutcome {
  kNothing,    // the folder was not being changed
  kFinished,   // it is the new checkpoint
  kUndone,     // it is the old one
  kLeftovers,  // no change had begun, or all of it was done; what was staged is gone
};

struct RecoverReport {
  RecoverOutcome outcome = RecoverOutcome::kNothing;
  uint64_t files = 0;  // of the interrupted change
};

// Finishes a Revert in place that was interrupted, by a crash or a loss of power, or takes it back. May be interrupted
// itself, and called again either way. Errors: kLocked, kUnfinishedChange where a file is not one that an interruption
// leaves, kIo.
Result<RecoverReport> Recover(const std::filesystem::path& folder, bool undo = false);
// A sentence, with a line feed.
std::string RecoverText(const RecoverReport& report);
std::string RecoverJson(const RecoverReport& report);

struct RepairOptions {
  std::filesystem::path input;   // a quantized checkpoint
  std::filesystem::path output;  // must not exist, or be an empty folder; not with in_place
  bool in_place = false;         // as RevertOptions has it, detach_links too
  bool detach_links = false;
  bool follow_links = false;  // copy files without tensors that are links out of the checkpoint's folder
  Reflink reflink = Reflink::kAuto;
  int threads = 0;  // 0: chosen from the machine
  std::function<void(uint64_t done, uint64_t total)> progress;
  const std::atomic<bool>* cancel = nullptr;
};

struct RepairReport {
  std::vector<RescaledTensor> rescaled;  // what a common global scale cost, tensor by tensor
  std::vector<std::string> mended;       // what else was wrong, a sentence each: the index, config files
  uint64_t tensors = 0;
  uint64_t bytes = 0;  // of the files
  uint64_t files = 0;
  uint64_t cloned_bytes = 0;                    // of them shared with the files they were made from
  std::vector<FileChangeReport> changed_files;  // in place only
  std::vector<std::string> notes;
};

// Mends what makes engines fail or talk nonsense and has one right answer: global scales (weight_scale_2,
// weight_global_scale) that differ among linears that engines load as one come under the largest, as MergeScales::kMax
// has it; a missing or wrong index is made anew; exclude lists and group sizes of configs say what the tensors are.
// Memory as Revert. Errors: any kind, and then nothing is changed; all without one right answer is one, by name.
Result<RepairReport> Repair(const RepairOptions& options);
// What was done, a few lines.
std::string RepairText(const RepairReport& report);
std::string RepairJson(const RepairReport& report);

struct ApplyOptions {
  std::filesystem::path input;   // a hub checkpoint, quantized or not
  std::filesystem::path output;  // must not exist, or be an empty folder
  MappingOptions mapping;
  MergeScales merge_scales = MergeScales::kRefuse;
  bool repair_index = false;
  bool follow_links = false;
  bool all_files = false;
  std::optional<uint64_t> max_shard_bytes;
  Reflink reflink = Reflink::kAuto;
  int threads = 0;
  std::function<void(uint64_t done, uint64_t total)> progress;
  const std::atomic<bool>* cancel = nullptr;
};

// The load direction: a hub checkpoint under the names and in the shapes that transformers has in memory. Revert with
// the input as reference undoes it. Memory, errors and fields as Revert's.
Result<RevertReport> Apply(const ApplyOptions& options);

// A range of bytes in a file of the export.
struct SourceRange {
  std::string file;
  std::string tensor;
  uint64_t offset = 0;  // in the file
  uint64_t bytes = 0;
};

struct PlannedTensorReport {
  std::string file;  // of the output
  std::string name;
  DType dtype = DType::kU8;
  std::vector<uint64_t> shape;
  uint64_t offset = 0;  // in the output file
  uint64_t bytes = 0;
  std::string layout;
  std::vector<SourceRange> sources;  // in the order of the output's bytes
  // "" for bytes copied as they are; else how they differ from the sources': "reordered", "rescaled", "padded",
  // "stated".
  std::string computed;
};

struct PlanReport {
  RevertReport revert;
  std::vector<PlannedTensorReport> tensors;
  std::map<std::string, std::string> configs;  // file name -> text, where module references change
};

// What Revert would do; writes nothing and reads no tensor data but scalars that must be equal.
Result<PlanReport> PlanRevert(const RevertOptions& options);

// One line a tensor: "file name dtype [shape] bytes <- source[from:to] ...".
std::string PlanText(const PlanReport& plan);
std::string PlanJson(const PlanReport& plan);
// What was done in one line: "reverted CLASS by MAPPING: 174 tensors became 201, ...".
std::string RevertText(const RevertReport& report);
std::string ReportJson(const RevertReport& report);
// {"errors": [{"kind", "file", "tensor", "message", "hint"}]}
std::string ErrorsJson(const Errors& errors);

// ---- verify ------------------------------------------------------------------------------------------------------

struct VerifyOptions {
  std::filesystem::path checkpoint;
  // The hub checkpoint, or its index; empty: the one that is found as RevertOptions::find_reference says.
  std::filesystem::path reference;
  // With no reference given: false holds the checkpoint against itself alone, and names and shapes against nothing.
  bool find_reference = true;
  MappingOptions mapping;
  std::string engine;  // "vllm", "sglang" or "tensorrt-llm", and "@VERSION" where it isn't the newest known
  std::filesystem::path engine_file;  // facts about another version, instead of the built-in ones
};

struct VerifyReport {
  std::string mapping;    // the one used: "transformers 5.17.0"; empty where the files could not be read
  std::string reference;  // what names were held against; empty: nothing
  uint64_t tensors = 0;
  uint64_t compared = 0;         // logical weights held against the reference
  bool shapes = false;           // the reference had headers, so logical shapes were compared too
  uint64_t shapes_compared = 0;  // of `compared`: those whose form is known on both sides
  Errors problems;               // empty: verified
  std::vector<std::string> notes;
  std::vector<Warning> warnings;
  std::optional<EngineReport> engine;  // its problems are among `problems` as well
};

// Names, logical shapes, companions, index and config files against the hub checkpoint. A mismatch is a problem in
// the report; errors are for what could not be read.
Result<VerifyReport> Verify(const VerifyOptions& options);
// Whether it is verified, in one line.
std::string VerifyText(const VerifyReport& report);
std::string VerifyJson(const VerifyReport& report);

// ---- inspect -----------------------------------------------------------------------------------------------------

struct InspectModule {
  std::string name;
  std::string layout;
  DType dtype = DType::kU8;     // of the first of its tensors, the value
  std::vector<uint64_t> shape;  // logical
  uint64_t bytes = 0;
  std::vector<std::string> tensors;  // "weight U8 [64, 48]"
  std::string misfit;                // of "unrecognized": what does not fit which format
};

struct InspectTotal {
  std::string layout;
  uint64_t weights = 0;
  uint64_t elements = 0;  // logical
  uint64_t bytes = 0;
};

struct InspectReport {
  std::string architecture;
  std::string quantization;  // what the configs say, "" for nothing
  uint64_t files = 0;
  uint64_t tensors = 0;
  uint64_t bytes = 0;
  std::map<std::string, uint64_t> bytes_by_dtype;
  std::vector<InspectTotal> totals;  // by layout, largest first
  std::vector<InspectModule> modules;
  std::vector<std::string> notes;
  std::vector<Warning> warnings;
  Errors problems;  // missing companions and the like
};

// How InspectText lays a report out.
struct InspectTextOptions {
  bool modules = false;  // a line for every module instead of the tree
  int width = 100;       // of a line of the tree, in characters; at least 60 are taken
  int depth = 0;         // levels of the tree; 0: as many as fit in 200 lines
};

Result<InspectReport> Inspect(const std::filesystem::path& checkpoint);
// The modules as a tree in which numbered siblings that are alike stand on one line, and totals.
std::string InspectText(const InspectReport& report, const InspectTextOptions& options = {});
std::string InspectJson(const InspectReport& report);

// ---- diff: two checkpoints held against each other ---------------------------------------------------------------

struct DiffOptions {
  std::filesystem::path a;
  std::filesystem::path b;
  bool data = true;        // compare the bytes of tensors that agree in dtype and shape
  bool map = false;        // names up to the model's conversion mapping: in-memory names against hub names
  MappingOptions mapping;  // of `map`
  int threads = 0;         // 0: chosen from the machine
  std::function<void(uint64_t done, uint64_t total)> progress;  // bytes compared; never called by two threads at once
  const std::atomic<bool>* cancel = nullptr;                    // set it from outside to stop; the result is kCancelled
};

enum class DiffKind {
  kOnlyInA,
  kOnlyInB,
  kDType,        // and maybe the shape, as that of packed weights depends on it
  kShape,        // with equal dtypes
  kContent,      // bytes of a tensor or a file, or a value in a JSON file
  kNotCompared,  // the mapping does more than move the bytes of this tensor
};

// The name in DiffJson, for example "only_in_a".
std::string_view DiffKindName(DiffKind kind);

struct TensorForm {
  DType dtype = DType::kU8;
  std::vector<uint64_t> shape;
};

struct TensorDiff {
  DiffKind kind = DiffKind::kContent;
  std::string name;             // with `map`: as the side with hub names has it
  std::optional<TensorForm> a;  // absent where the tensor is
  std::optional<TensorForm> b;
  uint64_t differing_bytes = 0;  // with kContent
  std::vector<uint64_t> first;   // with kContent: index of the first element that differs
};

// A difference in a file that holds no tensors. Values are JSON text, "" where there is none.
struct FileDiff {
  DiffKind kind = DiffKind::kContent;  // kOnlyInA, kOnlyInB (of the file or the value) or kContent
  std::string file;
  std::string path;  // of the value, "text_config.rope[2]"; "" for the file as a whole
  std::string a;
  std::string b;
};

struct DiffReport {
  std::string a;
  std::string b;
  bool data = true;                 // as asked for
  uint64_t equal_tensors = 0;       // with `data` in their bytes too
  uint64_t equal_files = 0;         // of those without tensors
  uint64_t compared_bytes = 0;      // of each side
  std::vector<TensorDiff> tensors;  // by kind and then name
  std::vector<FileDiff> files;      // by file
  std::vector<std::string> notes;   // what is no difference in content: shards, the mapping used

  bool Same() const { return tensors.empty() && files.empty(); }
};

// Files, JSON values and tensors by name. Which shard holds a tensor, the order of tensors and the order of keys
// in JSON are no difference. With `map`, one side is planned as Revert would write it, config files included, and
// that plan is compared; which side is found out by trying.
// Memory: headers, names and buffers of 8 MiB a thread. Errors: kIo, kInvalidHeader, kInvalidIndex, kCancelled; with
// `map` those of PlanRevert, where neither side could be planned.
Result<DiffReport> Diff(const DiffOptions& options);
// A line for each kind of difference and up to five examples of it; with `all`, every one.
std::string DiffText(const DiffReport& report, bool all = false);
std::string DiffJson(const DiffReport& report);

}  // namespace quantport
