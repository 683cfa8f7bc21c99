// What a command did, in one sentence.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/text.h"
#include "quantport/quantize.h"
#include "quantport/quantport.h"

namespace quantport {
namespace {

std::string_view Verb(RevertOutcome outcome) {
  switch (outcome) {
    case RevertOutcome::kReverted:
      return "reverted";
    case RevertOutcome::kApplied:
      return "applied the mapping of";
    case RevertOutcome::kCopied:
      return "copied";
    case RevertOutcome::kKeptNames:
      return "kept names of";
  }
  return "";
}

std::string_view Sentence(RecoverOutcome outcome) {
  switch (outcome) {
    case RecoverOutcome::kNothing:
      return "nothing to recover: no change of this folder was interrupted";
    case RecoverOutcome::kFinished:
      return "finished: the folder is the new checkpoint";
    case RecoverOutcome::kUndone:
      return "taken back: the folder is the checkpoint that it was";
    case RecoverOutcome::kLeftovers:
      return "nothing to finish or take back: all files are whole, and what an interrupted change left over is removed";
  }
  return "";
}

}  // namespace

std::string RevertText(const RevertReport& report) {
  std::string text = fmt::format("{} {} by {}: {} tensors became {}, {} renamed, {} cut or fused", Verb(report.outcome),
                                 Printable(report.architecture), Printable(report.mapping), report.input_tensors,
                                 report.output_tensors, report.renamed, report.cut);
  // Of a state dict nothing is written.
  if (report.files != 0)
    text += fmt::format("; {} in {} files, headers verified", HumanBytes(report.bytes), report.files);
  return text + "\n";
}

std::string RepairText(const RepairReport& report) {
  std::string text;
  for (const std::string& mended : report.mended) text += fmt::format("mended: {}\n", mended);
  std::set<std::string> scalars;
  uint64_t changed = 0;
  double largest = 0;
  for (const RescaledTensor& tensor : report.rescaled) {
    scalars.insert(tensor.scalar);
    changed += tensor.changed;
    largest = std::max(largest, tensor.largest_relative);
  }
  if (!report.rescaled.empty())
    text +=
        fmt::format("{} tensors were put under a common {}: {} elements rounded again, relative error {:.2e} at most\n",
                    report.rescaled.size(), fmt::join(scalars, ", "), changed, largest);
  if (text.empty()) return fmt::format("nothing to mend in {} tensors\n", report.tensors);
  return text + fmt::format("{} tensors, {} in {} files, headers verified\n", report.tensors, HumanBytes(report.bytes),
                            report.files);
}

std::string RecoverText(const RecoverReport& report) { return fmt::format("{}\n", Sentence(report.outcome)); }

std::string VerifyText(const VerifyReport& report) {
  if (!report.problems.empty()) return fmt::format("not verified: {} problems\n", report.problems.size());
  if (report.reference.empty() && report.engine && !report.engine->complete())
    return fmt::format(
        "consistent in itself: {} tensors, and nothing was found that {} {} can't load, but not all was checked\n",
        report.tensors, report.engine->engine, report.engine->version);
  if (report.reference.empty() && report.engine)
    return fmt::format("verified: {} tensors, which {} {} loads whole{}\n", report.tensors, report.engine->engine,
                       report.engine->version, report.engine->held ? "" : ", by its source as read");
  if (report.reference.empty())
    return fmt::format("consistent in itself: {} tensors, whose names were held against nothing\n", report.tensors);
  // A reference may have weights of a form that is not known: nothing is said of their shapes.
  if (report.shapes && report.shapes_compared < report.compared)
    return fmt::format("verified: {} tensors, {} weights with the names of the reference, {} of them with its shapes\n",
                       report.tensors, report.compared, report.shapes_compared);
  return fmt::format("verified: {} tensors, {} weights with the names{} of the reference\n", report.tensors,
                     report.compared, report.shapes ? " and shapes" : "");
}

std::string QuantizeSummary(const QuantizeReport& report) {
  return fmt::format("{}: {} in {} tensors became {} in {} tensors and {} files, headers verified\n",
                     report.recipe.empty() ? "dequantized" : "quantized with " + Printable(report.recipe),
                     HumanBytes(report.bytes_before), report.input_tensors, HumanBytes(report.bytes),
                     report.output_tensors, report.files);
}

}  // namespace quantport
