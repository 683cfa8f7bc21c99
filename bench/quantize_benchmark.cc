// Kernels of src/quantize: bytes of BF16 a second on one thread, for every target of this processor, against memcpy.
//
//   cmake --preset bench && cmake --build --preset bench --target quantport_quantize_bench
//   build/bench/quantport_quantize_bench
#include <benchmark/benchmark.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "base/checked.h"
#include "io/buffer.h"
#include "quantize/fp8.h"
#include "quantize/integer.h"
#include "quantize/mx.h"
#include "quantize/nvfp4.h"

namespace quantport::quantize {
namespace {

constexpr size_t kColumns = 4096;
constexpr size_t kMostRows = 1 << 16;  // 512 MiB
constexpr size_t kCachedRows = 64;     // 512 KiB, with codes below the second cache's 2 MiB

// In huge pages, as the tiles that `quantize` reads into.
class Buffer {
 public:
  explicit Buffer(size_t bytes) : memory_(bytes) { std::memset(memory_.bytes().data(), 1, bytes); }
  Buffer(Buffer&&) = delete;
  uint8_t* data() const { return reinterpret_cast<uint8_t*>(memory_.bytes().data()); }
  std::span<uint8_t> First(size_t bytes) const { return {data(), bytes}; }

 private:
  IoBuffer memory_;
};

// BF16 out of the file that QUANTPORT_BENCH_WEIGHTS names, so that others can be given the same; else drawn as models
// have them, normally distributed.
std::vector<uint8_t> Pattern() {
  if (const char* path = std::getenv("QUANTPORT_BENCH_WEIGHTS")) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::vector<uint8_t> bytes(2 << 22);
  const Output output = {bytes.data(), ElementType::kBF16};
  std::mt19937_64 random(3);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  for (size_t i = 0; i < bytes.size() / 2; ++i) output.Store(i, normal(random));
  return bytes;
}

const Buffer& Weights() {
  static const Buffer weights(2 * kMostRows * kColumns);
  static const bool filled = [] {
    const auto pattern = Pattern();
    if (pattern.empty()) std::abort();
    const auto all = weights.First(2 * kMostRows * kColumns);
    for (size_t i = 0; i < all.size(); i += pattern.size())
      std::memcpy(all.data() + i, pattern.data(), std::min(pattern.size(), all.size() - i));
    return true;
  }();
  benchmark::DoNotOptimize(filled);
  return weights;
}

Buffer& Codes() {
  static Buffer codes(2 * kMostRows * kColumns);
  return codes;
}
Buffer& BlockScales() {
  static Buffer scales(kMostRows * kColumns / 16);
  return scales;
}

struct Job {
  Matrix matrix;
  std::span<uint8_t> Out(size_t bytes) const { return Codes().First(bytes); }
  size_t elements() const { return matrix.rows * matrix.columns; }
};

constexpr float kAmax = 0.1074f;  // about that of the weights

std::vector<float> Scales(size_t count, float largest) {
  std::vector<float> scales(count);
  for (size_t i = 0; i < count; ++i)
    scales[i] = kAmax * (1.0f - 0.2f * std::fabs(std::sin(static_cast<float>(i)))) / largest;
  return scales;
}

using Run = std::function<void(const Job&)>;

Run Fp8In(BlockShape (*shape)(const Matrix&), std::vector<float> scales) {
  return [=](const Job& job) {
    const BlockShape block = shape(job.matrix);
    const size_t count = CeilDiv(job.matrix.rows, block.rows) * CeilDiv(kColumns, block.columns);
    benchmark::DoNotOptimize(QuantizeFp8(job.matrix, block, std::span(scales).first(count), job.Out(job.elements())));
  };
}

float Fp8Scale() { return kAmax / 448.0f; }

Status ToNvfp4(const Job& job) {
  return QuantizeNvfp4(job.matrix, kAmax / 2688.0f, 16, {}, BlockScales().First(job.elements() / 16),
                       job.Out(job.elements() / 2));
}

Status ToFp8(const Job& job) {
  return QuantizeFp8Tensor(job.matrix, Fp8Scale(), Arithmetic::kCpu, job.Out(job.elements()));
}

// As `quantize` does it: what was lost, by the codes that were just written.
Status ToNvfp4WithErrors(const Job& job) {
  ErrorSums sums;
  if (auto status = ToNvfp4(job); !status) return status;
  return MeasureNvfp4(job.matrix, job.Out(job.elements() / 2), 16, BlockScales().First(job.elements() / 16),
                      kAmax / 2688.0f, &sums);
}

Status ToFp8WithErrors(const Job& job) {
  ErrorSums sums;
  const float scale = Fp8Scale();
  if (auto status = ToFp8(job); !status) return status;
  return MeasureFp8(job.matrix, job.Out(job.elements()), {job.matrix.rows, kColumns}, {&scale, 1}, &sums);
}

Run Calling(Status (*function)(const Job&)) {
  return [=](const Job& job) { benchmark::DoNotOptimize(function(job)); };
}

std::vector<std::pair<std::string, Run>> Formats() {
  const auto many = Scales(kMostRows * kColumns / 128, 448.0f);
  return {
      {"memcpy", [](const Job& job) { std::memcpy(Codes().data(), job.matrix.bytes.data(), job.matrix.bytes.size()); }},
      {"amax",
       [](const Job& job) {
         float amax;
         benchmark::DoNotOptimize(BlockAmax(job.matrix, {job.matrix.rows, kColumns}, {&amax, 1}));
       }},
      {"nvfp4", Calling(ToNvfp4)},
      {"nvfp4_errors", Calling(ToNvfp4WithErrors)},
      {"fp8_tensor", Calling(ToFp8)},
      {"fp8_tensor_errors", Calling(ToFp8WithErrors)},
      {"fp8_channel", Fp8In(
                          [](const Matrix& matrix) {
                            return BlockShape{1, matrix.columns};
                          },
                          many)},
      {"fp8_128x128", Fp8In(
                          [](const Matrix&) {
                            return BlockShape{128, 128};
                          },
                          many)},
      {"mxfp8",
       [](const Job& job) {
         benchmark::DoNotOptimize(QuantizeMx(FormatId::kMxfp8, job.matrix, BlockScales().First(job.elements() / 32),
                                             job.Out(job.elements())));
       }},
      {"mxfp4",
       [](const Job& job) {
         benchmark::DoNotOptimize(QuantizeMx(FormatId::kMxfp4, job.matrix, BlockScales().First(job.elements() / 32),
                                             job.Out(job.elements() / 2)));
       }},
      {"int8_channel",
       [scales = Scales(kMostRows, 127.0f)](const Job& job) {
         benchmark::DoNotOptimize(
             QuantizeInt8(job.matrix, kColumns, std::span(scales).first(job.matrix.rows), job.Out(job.elements())));
       }},
      {"int4_group128",
       [scales = Scales(kMostRows * kColumns / 128, 7.0f)](const Job& job) {
         benchmark::DoNotOptimize(
             QuantizeInt4(job.matrix, 128, std::span(scales).first(job.elements() / 128), job.Out(job.elements() / 2)));
       }},
  };
}

void Measure(benchmark::State& state, const Run& run, int64_t target, size_t rows) {
  hwy::SetSupportedTargetsForTest(target);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  const Job job = {{Weights().First(2 * rows * kColumns), ElementType::kBF16, rows, kColumns}};
  run(job);
  for (auto _ : state) run(job);
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * job.matrix.bytes.size()));
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

void RegisterAll() {
  for (const auto& [name, run] : Formats()) {
    for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
      if (name == "memcpy" && target != hwy::SupportedAndGeneratedTargets().front()) continue;
      for (const size_t rows : {kCachedRows, kMostRows}) {
        const std::string label = name + "/" + hwy::TargetName(target) + (rows == kMostRows ? "/memory" : "/cache");
        auto* bench = benchmark::RegisterBenchmark(
            label.c_str(), [run = run, target, rows](benchmark::State& state) { Measure(state, run, target, rows); });
        bench->Unit(benchmark::kMicrosecond)->MinTime(0.15);
      }
    }
  }
}

}  // namespace
}  // namespace quantport::quantize

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  quantport::quantize::RegisterAll();
  benchmark::RunSpecifiedBenchmarks();
}
