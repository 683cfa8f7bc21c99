// The library's options as Python objects: attributes with the names of the C++ fields, enums as strings.
#include <nanobind/nanobind.h>
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <initializer_list>
#include <string>
#include <utility>

#include "bindings.h"
#include "quantport/quantize.h"
#include "quantport/quantport.h"

namespace nb = nanobind;

namespace quantport::python {
namespace {

template <typename Enum>
using Choices = std::initializer_list<std::pair<const char*, Enum>>;

constexpr Choices<OnUnsupported> kOnUnsupported = {{"fail", OnUnsupported::kFail},
                                                   {"keep-names", OnUnsupported::kKeepNames}};
constexpr Choices<ExpertForm> kExperts = {{"expanded", ExpertForm::kExpanded}, {"stacked", ExpertForm::kStacked}};
constexpr Choices<MergeScales> kMergeScales = {{"refuse", MergeScales::kRefuse}, {"max", MergeScales::kMax}};
constexpr Choices<Reflink> kReflink = {
    {"auto", Reflink::kAuto}, {"always", Reflink::kAlways}, {"never", Reflink::kNever}};
constexpr Choices<QuantizeArithmetic> kArithmetic = {{"cpu", QuantizeArithmetic::kCpu},
                                                     {"cuda", QuantizeArithmetic::kCuda}};

template <typename Enum>
Enum Chosen(const char* option, const Choices<Enum>& choices, const std::string& name) {
  std::string names;
  for (const auto& [choice, value] : choices) {
    if (name == choice) return value;
    names += std::string(names.empty() ? "" : ", ") + "'" + choice + "'";
  }
  throw nb::value_error((std::string(option) + " is one of " + names + ", not '" + name + "'").c_str());
}

template <typename Enum>
std::string NameOf(const Choices<Enum>& choices, Enum value) {
  for (const auto& [choice, other] : choices) {
    if (other == value) return choice;
  }
  return "";
}

// An attribute that is one of a few strings.
template <typename Class, typename Options, typename Enum>
void DefChoice(Class& bound, const char* option, Enum Options::*field, const Choices<Enum>& choices) {
  bound.def_prop_rw(
      option, [field, &choices](const Options& options) { return NameOf(choices, options.*field); },
      [option, field, &choices](Options& options, const std::string& name) {
        options.*field = Chosen(option, choices, name);
      });
}

void CheckThreads(int threads) {
  if (threads < 0 || threads > 256)
    throw nb::value_error("threads is a number from 1 to 256, or 0 to choose one from the machine");
}

template <typename Class, typename Options>
void DefThreads(Class& bound, int Options::*field) {
  bound.def_prop_rw(
      "threads", [field](const Options& options) { return options.*field; },
      [field](Options& options, int threads) {
        CheckThreads(threads);
        options.*field = threads;
      });
}

void SetShardBytes(std::optional<uint64_t>* field, std::optional<uint64_t> bytes) {
  if (bytes && *bytes == 0) throw nb::value_error("max_shard_bytes is a number of bytes, at least 1");
  *field = bytes;
}

// What every command that writes a folder has.
template <typename Options>
void DefWriting(nb::class_<Options>& bound) {
  bound.def(nb::init<>())
      .def_rw("input", &Options::input)
      .def_rw("output", &Options::output)
      .def_rw("repair_index", &Options::repair_index)
      .def_rw("follow_links", &Options::follow_links)
      .def_rw("all_files", &Options::all_files)
      .def_prop_rw(
          "max_shard_bytes", [](const Options& options) { return options.max_shard_bytes; },
          [](Options& options, std::optional<uint64_t> bytes) { SetShardBytes(&options.max_shard_bytes, bytes); },
          nb::arg("value").none());
  DefChoice(bound, "reflink", &Options::reflink, kReflink);
  DefThreads(bound, &Options::threads);
}

void BindMapping(nb::module_& module) {
  nb::class_<MappingOptions>(module, "MappingOptions")
      .def(nb::init<>())
      .def_rw("mapping_file", &MappingOptions::mapping_file, nb::arg("value").none())
      .def_rw("mapping_json", &MappingOptions::mapping_json, nb::arg("value").none())
      .def_rw("transformers_version", &MappingOptions::transformers_version, nb::arg("value").none())
      .def_rw("architecture", &MappingOptions::architecture, nb::arg("value").none());
}

void BindRevert(nb::module_& module) {
  nb::class_<RevertOptions> revert(module, "RevertOptions");
  DefWriting(revert);
  revert.def_rw("in_place", &RevertOptions::in_place)
      .def_rw("detach_links", &RevertOptions::detach_links)
      .def_rw("reference", &RevertOptions::reference, nb::arg("value").none())
      .def_rw("find_reference", &RevertOptions::find_reference)
      .def_rw("by_rules", &RevertOptions::by_rules)
      .def_rw("mapping", &RevertOptions::mapping)
      .def_rw("strict", &RevertOptions::strict)
      .def_rw("carry_missing", &RevertOptions::carry_missing);
  DefChoice(revert, "on_unsupported", &RevertOptions::on_unsupported, kOnUnsupported);
  DefChoice(revert, "experts", &RevertOptions::experts, kExperts);
  DefChoice(revert, "merge_scales", &RevertOptions::merge_scales, kMergeScales);

  nb::class_<RepairOptions> repair(module, "RepairOptions");
  repair.def(nb::init<>())
      .def_rw("input", &RepairOptions::input)
      .def_rw("output", &RepairOptions::output)
      .def_rw("in_place", &RepairOptions::in_place)
      .def_rw("detach_links", &RepairOptions::detach_links)
      .def_rw("follow_links", &RepairOptions::follow_links);
  DefChoice(repair, "reflink", &RepairOptions::reflink, kReflink);
  DefThreads(repair, &RepairOptions::threads);

  nb::class_<ApplyOptions> apply(module, "ApplyOptions");
  DefWriting(apply);
  apply.def_rw("mapping", &ApplyOptions::mapping);
  DefChoice(apply, "merge_scales", &ApplyOptions::merge_scales, kMergeScales);
}

void BindQuantize(nb::module_& module) {
  nb::class_<RecipeOptions>(module, "RecipeOptions")
      .def(nb::init<>())
      .def_rw("name", &RecipeOptions::name)
      .def_rw("folders", &RecipeOptions::folders)
      .def_rw("kv_cache", &RecipeOptions::kv_cache, nb::arg("value").none());

  nb::class_<QuantizeOptions> quantize(module, "QuantizeOptions");
  DefWriting(quantize);
  quantize.def_rw("recipe", &QuantizeOptions::recipe)
      .def_rw("calibration", &QuantizeOptions::calibration, nb::arg("value").none())
      .def_rw("allow_nonfinite", &QuantizeOptions::allow_nonfinite)
      .def_rw("bit_exact_zeros", &QuantizeOptions::bit_exact_zeros)
      .def_rw("quantize_mtp", &QuantizeOptions::quantize_mtp)
      .def_rw("mapping", &QuantizeOptions::mapping);
  DefChoice(quantize, "arithmetic", &QuantizeOptions::arithmetic, kArithmetic);

  nb::class_<DequantizeOptions> dequantize(module, "DequantizeOptions");
  DefWriting(dequantize);
}

void BindComparing(nb::module_& module) {
  nb::class_<VerifyOptions>(module, "VerifyOptions")
      .def(nb::init<>())
      .def_rw("checkpoint", &VerifyOptions::checkpoint)
      .def_rw("reference", &VerifyOptions::reference)
      .def_rw("find_reference", &VerifyOptions::find_reference)
      .def_rw("mapping", &VerifyOptions::mapping)
      .def_rw("engine", &VerifyOptions::engine)
      .def_rw("engine_file", &VerifyOptions::engine_file);

  nb::class_<DiffOptions> diff(module, "DiffOptions");
  diff.def(nb::init<>())
      .def_rw("a", &DiffOptions::a)
      .def_rw("b", &DiffOptions::b)
      .def_rw("data", &DiffOptions::data)
      .def_rw("map", &DiffOptions::map)
      .def_rw("mapping", &DiffOptions::mapping);
  DefThreads(diff, &DiffOptions::threads);
}

}  // namespace

void BindOptions(nb::module_& module) {
  BindMapping(module);
  BindRevert(module);
  BindQuantize(module);
  BindComparing(module);
}

}  // namespace quantport::python
