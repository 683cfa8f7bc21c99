// Plans of state dicts. What crosses the border are names, numbers and short lists; tensors stay in Python.
#include "quantport/state_dict.h"

#include <nanobind/nanobind.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "bindings.h"
#include "errors.h"
#include "text.h"

namespace nb = nanobind;
using nb::literals::operator""_a;

namespace quantport::python {
namespace {

using Texts = std::vector<std::string>;
using OptionalText = std::optional<std::string>;

std::string String(nb::handle text) {
  Py_ssize_t size = 0;
  const char* data = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
  if (data == nullptr) throw nb::python_error();
  return {data, static_cast<size_t>(size)};
}

// Of a tensor, or the sizes themselves. 200,000 shapes of torch tensors kept as a list of Python's cost a fifth of a
// second.
std::vector<uint64_t> Shape(nb::handle tensor) {
  const bool is_shape = PyTuple_Check(tensor.ptr()) || PyList_Check(tensor.ptr());
  const nb::object sizes = is_shape ? nb::borrow(tensor) : nb::getattr(tensor, "shape");
  std::vector<uint64_t> shape;
  const Py_ssize_t count = PySequence_Size(sizes.ptr());
  if (count < 0) throw nb::python_error();
  shape.reserve(static_cast<size_t>(count));
  for (Py_ssize_t i = 0; i < count; ++i) {
    const nb::object item = nb::steal(PySequence_GetItem(sizes.ptr(), i));
    if (!item.is_valid()) throw nb::python_error();
    const unsigned long long size = PyLong_AsUnsignedLongLong(item.ptr());
    if (PyErr_Occurred() != nullptr) throw nb::python_error();
    shape.push_back(size);
  }
  return shape;
}

DType DTypeOf(nb::handle code) {
  const int number = nb::cast<int>(code);
  if (number < 0 || number >= kDTypeCount) throw nb::value_error("no such dtype code");
  return static_cast<DType>(number);
}

std::vector<StateTensor> Tensors(const nb::list& names, const nb::list& dtypes, const nb::list& shapes) {
  if (names.size() != dtypes.size() || names.size() != shapes.size()) throw nb::value_error("lists of unequal length");
  std::vector<StateTensor> tensors;
  tensors.reserve(names.size());
  for (size_t i = 0; i < names.size(); ++i) tensors.push_back({String(names[i]), DTypeOf(dtypes[i]), Shape(shapes[i])});
  return tensors;
}

template <typename T>
nb::tuple Tuple(const std::vector<T>& values) {
  return nb::tuple(nb::cast(values));
}

nb::list BoxList(const std::vector<StateBox>& boxes) {
  nb::list out;
  for (const StateBox& box : boxes) {
    std::vector<uint64_t> extents;
    std::vector<uint64_t> from;
    std::vector<uint64_t> to;
    for (const StateBox::Dim& dim : box.dims) {
      extents.push_back(dim.extent);
      from.push_back(dim.from_stride);
      to.push_back(dim.to_stride);
    }
    const int64_t tensor = box.tensor == kNoTensor ? -1 : static_cast<int64_t>(box.tensor);
    out.append(nb::make_tuple(tensor, box.step, box.from, box.to, Tuple(extents), Tuple(from), Tuple(to)));
  }
  return out;
}

nb::tuple ArrayTuple(const StateArray& array) {
  return nb::make_tuple(static_cast<int>(array.dtype), Tuple(array.shape), BoxList(array.boxes));
}

nb::list Names(const StateDictPlan& plan) {
  nb::list out;
  for (const std::string& name : plan.names) out.append(Text(name));
  return out;
}

nb::list Whole(const StateDictPlan& plan) {
  nb::list out;
  for (const uint32_t tensor : plan.whole) out.append(tensor == kNoTensor ? -1 : static_cast<int64_t>(tensor));
  return out;
}

nb::list Series(const StateDictPlan& plan) {
  nb::list out;
  for (const StateSeries& series : plan.series) {
    out.append(nb::make_tuple(series.tensor, series.offset, series.distance, Tuple(series.shape), Tuple(series.strides),
                              series.copied, series.results));
  }
  return out;
}

nb::list Joined(const StateDictPlan& plan) {
  nb::list out;
  for (const StateJoined& joined : plan.joined) out.append(nb::make_tuple(joined.result, ArrayTuple(joined.array)));
  return out;
}

nb::list Literals(const StateDictPlan& plan) {
  nb::list out;
  for (const StateLiteral& literal : plan.literals) {
    out.append(nb::make_tuple(literal.result, static_cast<int>(literal.dtype), Tuple(literal.shape),
                              nb::bytes(literal.bytes.data(), literal.bytes.size())));
  }
  return out;
}

nb::list Checks(const StateDictPlan& plan) {
  nb::list out;
  for (const StateCheck& check : plan.checks) out.append(nb::make_tuple(ArrayTuple(check.a), ArrayTuple(check.b)));
  return out;
}

nb::list Merges(const StateDictPlan& plan) {
  nb::list out;
  for (const StateMerge& merge : plan.merges) out.append(nb::make_tuple(merge.tensors, merge.offsets));
  return out;
}

nb::list Warnings(const StateDictPlan& plan) {
  nb::list out;
  for (const Warning& warning : plan.report.warnings) out.append(Text(warning.ToString()));
  return out;
}

// Why the names were kept, as the exception that OnUnsupported::kFail would have been.
void RaiseUnsupported(const StateDictPlan& plan) {
  if (!plan.report.unsupported.empty()) Raise(plan.report.unsupported);
}

// A tensor that can't be read is one without bytes. Python's exceptions must not go through the library, which holds no
// GIL when it lets them go.
std::function<OptionalText(uint32_t)> Reader(const nb::object& read) {
  if (read.is_none()) return {};
  return [&read](uint32_t tensor) -> OptionalText {
    const nb::gil_scoped_acquire gil;
    try {
      const nb::object bytes = read(tensor);
      if (bytes.is_none()) return std::nullopt;
      const auto content = nb::cast<nb::bytes>(bytes);
      return std::string(content.c_str(), content.size());
    } catch (nb::python_error& error) {
      error.discard_as_unraisable("quantport: reading a tensor");
      return std::nullopt;
    }
  };
}

// What a state dict is converted with alike to files.
StateDictOptions OptionsOf(const RevertOptions& revert) {
  StateDictOptions options;
  options.mapping = revert.mapping;
  options.reference = revert.reference;
  options.by_rules = revert.by_rules;
  options.on_unsupported = revert.on_unsupported;
  options.experts = revert.experts;
  options.merge_scales = revert.merge_scales;
  options.strict = revert.strict;
  return options;
}

void SetReferenceNames(StateDictOptions& options, const nb::list& names) {
  StateReference& reference = options.reference_tensors.emplace();
  for (const nb::handle name : names) reference.names.push_back(String(name));
}

void SetReferenceTensors(StateDictOptions& options, const nb::list& names, const nb::list& dtypes,
                         const nb::list& shapes) {
  options.reference_tensors = StateReference{Tensors(names, dtypes, shapes), {}};
}

StateDictPlan MakePlan(const nb::list& names, const nb::list& dtypes, const nb::list& shapes, StateDictOptions& options,
                       const nb::object& read) {
  std::vector<StateTensor> tensors = Tensors(names, dtypes, shapes);
  options.read = Reader(read);
  std::optional<Result<StateDictPlan>> plan;
  {
    const nb::gil_scoped_release unlocked;
    plan.emplace(PlanStateDict(std::move(tensors), options));
  }
  options.read = {};
  return Unwrap(std::move(*plan));
}

// What each step does; or the plan that keeps the names.
nb::object MergeScalars(const StateDictPlan& plan, const std::vector<std::vector<nb::bytes>>& scalars) {
  std::vector<Texts> bytes;
  for (const auto& merge : scalars) {
    Texts& list = bytes.emplace_back();
    for (const nb::bytes& scalar : merge) list.emplace_back(scalar.c_str(), scalar.size());
  }
  auto results = MergeStateScalars(plan, bytes);
  if (!results) return nb::cast(Unwrap(plan.keep_names(results.errors())));
  return nb::cast(std::move(*results));
}

void Rescaled(StateDictPlan& plan, const std::vector<StateStepResult>& steps,
              const std::vector<std::vector<uint64_t>>& counts) {
  std::vector<std::array<uint64_t, 256>> met(steps.size());
  for (size_t i = 0; i < met.size(); ++i) {
    if (counts.at(i).size() != 256) throw nb::value_error("a count for each of 256 codes");
    std::copy_n(counts[i].begin(), 256, met[i].begin());
  }
  ReportRescaled(steps, met, &plan);
}

}  // namespace

void BindStateDict(nb::module_& module) {
  nb::list dtypes;
  for (int i = 0; i < kDTypeCount; ++i) dtypes.append(Text(DTypeName(static_cast<DType>(i))));
  module.attr("DTYPES") = nb::tuple(dtypes);
  nb::class_<StateDictOptions>(module, "StateDictOptions")
      .def_rw("config", &StateDictOptions::config)
      .def_rw("more", &StateDictOptions::more)
      .def_rw("folder", &StateDictOptions::folder)
      .def_rw("shapes_known", &StateDictOptions::shapes_known)
      .def("set_reference_names", SetReferenceNames, "names"_a)
      .def("set_reference_tensors", SetReferenceTensors, "names"_a, "dtypes"_a, "shapes"_a);
  module.def("value_names", ValueNames, "names"_a);
  module.def("state_dict_options", OptionsOf, "revert"_a);
  nb::class_<StateDictPlan>(module, "StateDictPlan")
      .def("names", Names)
      .def("whole", Whole)
      .def("copied", [](const StateDictPlan& plan) { return plan.copied; })
      .def("series", Series)
      .def("joined", Joined)
      .def("literals", Literals)
      .def("checks", Checks)
      .def("merges", Merges)
      .def("configs", [](const StateDictPlan& plan) { return plan.configs; })
      .def("report", [](const StateDictPlan& plan) { return plan.report; })
      .def("kept", [](const StateDictPlan& plan) { return plan.report.outcome == RevertOutcome::kKeptNames; })
      .def("warnings", Warnings)
      .def("unchanged", [](const StateDictPlan& plan) { return plan.report.outcome == RevertOutcome::kCopied; })
      .def("raise_unsupported", RaiseUnsupported)
      .def(
          "rename_module",
          [](const StateDictPlan& plan, const std::string& name) { return Text(plan.rename_module(name)); }, "module"_a)
      .def(
          "rewrite_references",
          [](const StateDictPlan& plan, const std::string& text, const std::string& file) {
            return Text(Unwrap(plan.rewrite_references(text, file)));
          },
          "text"_a, "file"_a)
      .def(
          "without",
          [](const StateDictPlan& plan, const std::vector<size_t>& failed) {
            return Unwrap(plan.keep_names(FailedChecks(plan, failed)));
          },
          "failed_checks"_a)
      .def("merge_scalars", MergeScalars, "scalars"_a)
      .def("report_rescaled", Rescaled, "steps"_a, "counts"_a);
  nb::class_<StateStepResult>(module, "StateStep")
      .def_ro("merged", &StateStepResult::merged)
      .def_ro("merge", &StateStepResult::merge)
      .def_ro("winner", &StateStepResult::winner)
      .def("codes", [](const StateStepResult& step) { return nb::bytes(step.code.data(), step.code.size()); });
  module.def("plan_state_dict", MakePlan, "names"_a, "dtypes"_a, "shapes"_a, "options"_a, "read"_a.none());
}

}  // namespace quantport::python
