// What quantizing writes and what each byte of it is computed from: fixed before the first output is opened.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "format/coded_weight.h"
#include "plan/memory_modules.h"
#include "plan/plan.h"
#include "recipe/format.h"

namespace quantport {

// What is to become of one matrix of MemoryModel.
struct MatrixChoice {
  Encoding encoding;
  std::optional<float> input_amax;  // of which an input_scale is written
};

// A scale of the KV cache.
struct CacheScale {
  std::string name;    // of the tensor
  std::string beside;  // the tensor near which it is written
  float amax = 0;
};

struct OutputPlace {
  uint32_t file = 0;    // index into Plan::files
  uint64_t offset = 0;  // in the file

  friend bool operator==(const OutputPlace&, const OutputPlace&) = default;
};

// Where elements are read: views of plain tensors, or a weight that is stored quantized.
struct MatrixSource {
  Array array;        // two dimensions; where `coded` is plain
  CodedWeight coded;  // parts by index into Plan::tensors

  friend bool operator==(const MatrixSource&, const MatrixSource&) = default;
};

struct PlannedMatrix {
  std::string name;       // of its module, or of the parameter where experts are batched
  std::string in_memory;  // the module it belongs to there
  Target target;
  MatrixSource source;
  DType dtype = DType::kBF16;  // of the elements as read
  uint64_t rows = 0;
  uint64_t columns = 0;
  std::optional<uint32_t> group = {};  // matrices that share the largest magnitude their scale comes from
  // As HubMatrix::batched: `rows` are inputs and `columns` outputs, but in gpt-oss's blocks, which are the other way.
  uint64_t batched = 0;
  // Where its stored parts go. None: the format has no such part, or another part of the plan writes it. A matrix
  // without any is read for what its group shares.
  std::optional<OutputPlace> codes = {};
  std::optional<OutputPlace> scales = {};  // where the format has several
  std::optional<OutputPlace> scalar = {};  // where it has one, or one of the scales
  uint64_t bytes_before = 0;
  uint64_t bytes_after = 0;

  friend bool operator==(const PlannedMatrix&, const PlannedMatrix&) = default;
};

// The name of a stored part of it: "<module>.weight_scale", or "<parameter>_weight_scale".
std::string LeafName(const PlannedMatrix& matrix, std::string_view leaf);

// The same of its codes.
std::string ValueName(const PlannedMatrix& matrix);

// A scale that follows from calibration alone: amax / divisor.
struct PlannedScalar {
  OutputPlace place;
  float amax = 0;
  float divisor = 1;

  friend bool operator==(const PlannedScalar&, const PlannedScalar&) = default;
};

// How numbers are computed.
struct Computing {
  bool as_cuda = false;          // as torch on a CUDA device rounds, and not as on a CPU
  bool bit_exact_zeros = false;  // ModelOpt's NaN for weights that are all zero
  bool allow_nonfinite = false;  // weights with NaN or infinity are quantized instead of refused

  friend bool operator==(const Computing&, const Computing&) = default;
};

// A plan that computes, or one that does not: then it has no matrices and no scalars.
struct QuantizePlan {
  Plan files;
  Computing computing = {};
  std::vector<PlannedMatrix> matrices;  // in the order of their sources
  std::vector<PlannedScalar> scalars;
  uint32_t groups = 0;

  friend bool operator==(const QuantizePlan&, const QuantizePlan&) = default;
};

struct QuantizeInput {
  const TensorTable* table = nullptr;
  const std::vector<WeightUnit>* units = nullptr;
  const MemoryModel* memory = nullptr;
  std::vector<std::optional<MatrixChoice>> choices;  // of MemoryModel::matrices; none: left as it is
  std::vector<CacheScale> cache_scales;
  bool dequantize_rest = false;  // what is stored quantized and not chosen is dequantized
  // Why a weight that is stored quantized can't be read, after "it is stored as X"; asked before anything is planned
  // of it. Planning knows no codecs (src/codec), who plans does.
  std::function<std::optional<std::string>(const CodedWeight&)> why_unread;
  bool zeros_less_one = false;       // as QuantScheme has it
  DType plain_dtype = DType::kBF16;  // of dequantized elements
};

// Errors: kQuantConversionUnsupported naming each tensor that can't be quantized or dequantized; as MakePlan.
Result<QuantizePlan> MakeQuantizePlan(const QuantizeInput& input, const std::filesystem::path& directory,
                                      const PlanOptions& options);

}  // namespace quantport
