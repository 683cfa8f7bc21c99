// The stages that grow with the number of tensors, on tables as large as those of the largest models.
//
//   cmake --preset bench && cmake --build --preset bench --target quantport_bench && build/bench/quantport_bench
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "base/text.h"
#include "io/file.h"
#include "layout/recognize.h"
#include "mapping/model.h"
#include "mapping/renamer.h"
#include "plan/conversion.h"
#include "plan/plan.h"
#include "safetensors/header.h"
#include "synthetic_export.h"

namespace quantport::bench {
namespace {

// A defect of the input or the library: the figures would mean nothing.
template <typename T>
T Take(Result<T> result) {
  if (result) return std::move(*result);
  for (const Error& error : result.errors()) fprintf(stderr, "error: %s\n", error.ToString().c_str());
  std::exit(1);
}

const std::string& Config() {
  static const std::string text = Take(ReadTextFile(QUANTPORT_BENCH_CONFIG, 1 << 20));
  return text;
}

ModelMapping Resolve() { return Take(ResolveMapping(Config(), "config.json", {}, {}, std::nullopt)); }

const ModelMapping& Mapping() {
  static const ModelMapping mapping = Resolve();
  return mapping;
}

const TensorTable& Export(int64_t tensors) {
  static std::map<int64_t, TensorTable> tables;
  const auto it = tables.find(tensors);
  return it != tables.end() ? it->second : tables[tensors] = MakeExport(static_cast<size_t>(tensors));
}

std::vector<WeightUnit> Recognize(const TensorTable& table) { return Take(RecognizeUnits(table, {.quantized = true})); }

Conversion Revert(const TensorTable& table, const std::vector<WeightUnit>& units) {
  return Take(RevertNames({&table, &units, &Mapping().resolved, Mapping().legacy, nullptr}));
}

Plan LayOut(const Conversion& conversion, const TensorTable& table) {
  return Take(MakePlan(conversion, table, "export", {.max_shard_bytes = {}, .index = nullptr, .sharded = true}));
}

void CountTensors(benchmark::State& state, const TensorTable& table) {
  const size_t tensors = table.tensors.size();
  state.counters["tensors"] = static_cast<double>(tensors);
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(tensors));
}

void BM_ParseHeader(benchmark::State& state) {
  const TensorTable& table = Export(state.range(0));
  const FlatHeader header = MakeHeader(table);
  for (auto _ : state) benchmark::DoNotOptimize(Take(ParseHeader(header.json, header.file_bytes, "synthetic")));
  CountTensors(state, table);
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(header.json.size()));
}

void BM_SerializeHeader(benchmark::State& state) {
  const TensorTable& table = Export(state.range(0));
  const FlatHeader header = MakeHeader(table);
  const Metadata metadata = {{"format", "pt"}};
  for (auto _ : state) benchmark::DoNotOptimize(Take(SerializeHeader(header.tensors, metadata, "synthetic")));
  CountTensors(state, table);
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(header.json.size()));
}

// From the registry's text to the transforms of one model.
void BM_ResolveMapping(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(Resolve());
}

void BM_ParseRegistry(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(Take(Registry::BuiltIn(BuiltInMappings().back())));
}

void BM_ResolveModel(benchmark::State& state) {
  const Registry registry = Take(Registry::BuiltIn(BuiltInMappings().back()));
  for (auto _ : state) benchmark::DoNotOptimize(Take(ResolveModel(registry, Config(), "config.json")));
}

void BM_CompileTransforms(benchmark::State& state) {
  const auto& transforms = Mapping().resolved.transforms;
  for (auto _ : state) benchmark::DoNotOptimize(Take(Renamer::Create(transforms, Renamer::Direction::kSave)));
  state.counters["transforms"] = static_cast<double>(transforms.size());
}

// Every tensor's name through every reversed pattern: the cost of matching alone.
void BM_RenameNames(benchmark::State& state) {
  std::vector<std::string> names;
  for (const StoredTensor& tensor : Export(state.range(0)).tensors) names.push_back(tensor.info.name);
  names.resize(std::min<size_t>(names.size(), static_cast<size_t>(state.range(0))));
  std::sort(names.begin(), names.end(), DotNaturalLess);
  Renamer renamer = Take(Renamer::Create(Mapping().resolved.transforms, Renamer::Direction::kSave));
  for (auto _ : state) {
    for (const std::string& name : names) benchmark::DoNotOptimize(renamer.Rename(name));
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(names.size()));
}

void BM_RecognizeUnits(benchmark::State& state) {
  const TensorTable& table = Export(state.range(0));
  for (auto _ : state) benchmark::DoNotOptimize(Recognize(table));
  CountTensors(state, table);
}

void BM_RevertNames(benchmark::State& state) {
  const TensorTable& table = Export(state.range(0));
  const std::vector<WeightUnit> units = Recognize(table);
  Mapping();
  for (auto _ : state) benchmark::DoNotOptimize(Revert(table, units));
  CountTensors(state, table);
}

void BM_MakePlan(benchmark::State& state) {
  const TensorTable& table = Export(state.range(0));
  const std::vector<WeightUnit> units = Recognize(table);
  const Conversion conversion = Revert(table, units);
  for (auto _ : state) benchmark::DoNotOptimize(LayOut(conversion, table));
  CountTensors(state, table);
}

// From the headers' tensors to the plan, as `revert` does it.
void BM_WholePlan(benchmark::State& state) {
  const TensorTable& table = Export(state.range(0));
  Mapping();
  for (auto _ : state) {
    const std::vector<WeightUnit> units = Recognize(table);
    benchmark::DoNotOptimize(LayOut(Revert(table, units), table));
  }
  CountTensors(state, table);
}

BENCHMARK(BM_ParseHeader)->Arg(35'000)->Arg(200'000)->Unit(benchmark::kMillisecond);
BENCHMARK(BM_SerializeHeader)->Arg(35'000)->Arg(200'000)->Unit(benchmark::kMillisecond);
BENCHMARK(BM_ResolveMapping)->Unit(benchmark::kMillisecond);
BENCHMARK(BM_ParseRegistry)->Unit(benchmark::kMillisecond);
BENCHMARK(BM_ResolveModel)->Unit(benchmark::kMicrosecond);
BENCHMARK(BM_CompileTransforms)->Unit(benchmark::kMicrosecond);
BENCHMARK(BM_RenameNames)->Arg(50'000)->Unit(benchmark::kMillisecond);
BENCHMARK(BM_RecognizeUnits)->Arg(35'000)->Arg(200'000)->Unit(benchmark::kMillisecond);
BENCHMARK(BM_RevertNames)->Arg(35'000)->Arg(200'000)->Unit(benchmark::kMillisecond);
BENCHMARK(BM_MakePlan)->Arg(35'000)->Arg(200'000)->Unit(benchmark::kMillisecond);
BENCHMARK(BM_WholePlan)->Arg(50'000)->Arg(100'000)->Arg(200'000)->Arg(400'000)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace quantport::bench
