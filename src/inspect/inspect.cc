#include "inspect/inspect.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "checkpoint/checkpoint.h"
#include "layout/misfits.h"
#include "layout/recognize.h"
#include "load/configs.h"
#include "load/load.h"
#include "quantport/quantport.h"
#include "verify/compare_claims.h"

namespace quantport {
namespace {

// Weights that go wrong do so by the hundred, and all in the same way; --json has them all.
constexpr size_t kMaxNotes = 20;

uint64_t TensorBytesOf(const TensorInfo& info) { return info.end - info.begin; }

InspectModule DescribeUnit(const WeightUnit& unit, const TensorTable& table) {
  InspectModule module;
  module.name = unit.role == UnitRole::kValue && unit.style == NameStyle::kModule
                    ? unit.module
                    : table.tensors[unit.tensors[0]].info.name;
  module.layout = std::string(FormatName(unit.weight.format));
  if (unit.weight.format == FormatId::kUnrecognized) module.misfit = MisfitText(unit.weight);
  module.dtype = table.tensors[unit.tensors[0]].info.dtype;
  module.shape = unit.weight.shape;
  for (size_t i = 0; i < unit.tensors.size(); ++i) {
    const TensorInfo& info = table.tensors[unit.tensors[i]].info;
    module.bytes += TensorBytesOf(info);
    module.tensors.push_back(
        fmt::format("{} {} [{}]", SplitLeaf(info.name).leaf, DTypeName(info.dtype), fmt::join(info.shape, ", ")));
  }
  return module;
}

void AddTotal(const WeightUnit& unit, uint64_t bytes, std::vector<InspectTotal>* totals) {
  const std::string layout(FormatName(unit.weight.format));
  auto it =
      std::find_if(totals->begin(), totals->end(), [&](const InspectTotal& total) { return total.layout == layout; });
  if (it == totals->end()) it = totals->insert(totals->end(), InspectTotal{layout, 0, 0, 0});
  uint64_t elements = 1;
  for (const uint64_t size : unit.weight.shape) elements *= size;
  it->weights += 1;
  it->elements += unit.role == UnitRole::kValue ? elements : 0;
  it->bytes += bytes;
}

}  // namespace

Result<InspectReport> Inspect(const Storage& storage, const std::string& address) {
  auto checkpoint = OpenCheckpoint(storage, address);
  if (!checkpoint) return checkpoint.errors();
  InspectReport report;
  report.notes = checkpoint->notes;
  // A folder of tensors without a config can be looked at as well.
  auto configs = ReadConfigs(*checkpoint);
  std::optional<Warning> unmapped;
  if (configs) {
    report.quantization = configs->scheme.quant_algo;
    if (auto model = LoadModel(configs->config_text, checkpoint->folder->AddressOf(kConfigName), {})) {
      report.architecture = model->resolved.architecture;
      unmapped = model->resolved.unmapped;
      if (auto note = ClassNote(model->resolved)) report.notes.push_back(std::move(*note));
    }
  } else if (AnyUnreadable(configs.errors(), *checkpoint)) {
    return configs.errors();
  } else {
    for (const Error& error : configs.errors()) report.notes.push_back(error.ToString());
  }
  const TensorTable& table = checkpoint->table;
  report.files = table.shards.size();
  report.tensors = table.tensors.size();
  report.bytes = table.TotalBytes();
  for (const StoredTensor& tensor : table.tensors)
    report.bytes_by_dtype[std::string(DTypeName(tensor.info.dtype))] += TensorBytesOf(tensor.info);
  auto units = configs ? RecognizeCheckpoint(*checkpoint, *configs) : RecognizeUnits(table, {});
  if (!units) {
    if (AnyUnreadable(units.errors(), *checkpoint)) return units.errors();
    report.problems = units.errors();
    return report;
  }
  const std::vector<UnknownWeight> unknown = FindUnknownWeights(*units, configs && configs->scheme.quantized);
  report.warnings = UnknownWeightWarnings(unknown);
  if (unmapped) report.warnings.push_back(std::move(*unmapped));
  if (configs) {
    MatchBudget budget;
    if (auto claims = CompareClaims(*configs, *units, &budget)) {
      for (Warning& warning : WarningsOf(claims->differences)) report.warnings.push_back(std::move(warning));
    } else {
      for (const Error& error : claims.errors()) report.notes.push_back(error.ToString());
    }
  }
  for (const UnknownWeight& weight : unknown) {
    if (weight.kind == UnknownWeight::Kind::kUnrecognized && report.notes.size() < kMaxNotes)
      report.notes.push_back(fmt::format("{}: {}", weight.unit->key, MisfitText(weight.unit->weight)));
  }
  for (const WeightUnit& unit : *units) {
    report.modules.push_back(DescribeUnit(unit, table));
    AddTotal(unit, report.modules.back().bytes, &report.totals);
  }
  std::stable_sort(report.modules.begin(), report.modules.end(),
                   [](const InspectModule& a, const InspectModule& b) { return DotNaturalLess(a.name, b.name); });
  std::stable_sort(report.totals.begin(), report.totals.end(),
                   [](const InspectTotal& a, const InspectTotal& b) { return a.bytes > b.bytes; });
  return report;
}

}  // namespace quantport
