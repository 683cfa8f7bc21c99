// Quantizing a hub checkpoint file to file, and back. As in quantport.h: nothing prints, exits or throws.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "quantport/quantport.h"

namespace quantport {

// Whose bits are reproduced: ModelOpt's depend on where torch ran (docs/quantization.md).
enum class QuantizeArithmetic { kCpu, kCuda };

// Where recipes come from.
struct RecipeOptions {
  std::string name;                            // of a built-in recipe or preset, or a file
  std::vector<std::filesystem::path> folders;  // recipe libraries of one's own, looked into before the built-in one
  std::optional<std::string> kv_cache;         // a KV preset ("fp8_cast") or "none", instead of what the recipe says
};

struct QuantizeOptions {
  std::filesystem::path input;   // a hub checkpoint: BF16, F16, F32 or fine-grained FP8
  std::filesystem::path output;  // must not exist, or be an empty folder
  RecipeOptions recipe;
  // safetensors with a F32 scalar `<module>.input_amax` for each module, `<attention>.k_amax` and `.v_amax`, in hub or
  // in-memory names. Needed where activations have static scales.
  std::optional<std::filesystem::path> calibration;
  QuantizeArithmetic arithmetic = QuantizeArithmetic::kCpu;
  bool allow_nonfinite = false;  // weights with NaN or infinity
  bool bit_exact_zeros = false;  // ModelOpt's NaN for weights that are all zero
  bool quantize_mtp = false;     // leave draft (MTP) layers to the recipe, which otherwise stay as they are
  MappingOptions mapping;
  bool repair_index = false;
  bool follow_links = false;                // copy files without tensors that are links out of the input's folder
  bool all_files = false;                   // as RevertOptions::all_files
  std::optional<uint64_t> max_shard_bytes;  // new shards of at most so many bytes; default: the input's shards
  Reflink reflink = Reflink::kAuto;         // of what is left alone
  int threads = 0;                          // 0: chosen from the machine
  std::function<void(uint64_t done, uint64_t total)> progress;
  const std::atomic<bool>* cancel = nullptr;
};

// What became of one matrix. The errors are filled when data is written.
struct QuantizedWeight {
  std::string name;       // of its module in the result
  std::string in_memory;  // what recipes call the module
  std::string format;     // ModelOpt's name: "nvfp4", "fp8", ...; "" for dequantized
  uint64_t rows = 0;
  uint64_t columns = 0;
  uint64_t bytes_before = 0;
  uint64_t bytes_after = 0;
  double sqnr_db = 0;        // 10 log10 of sum of squares over sum of squared errors; infinite without errors
  double max_error = 0;      // of one element
  double clipped_share = 0;  // of elements beyond what their scale can express
  // Blocks of a weight stored as MXFP4 whose powers of two became the scales of NVFP4, and how many of them kept their
  // numbers; 0 where a weight was not cast.
  uint64_t cast_blocks = 0;
  uint64_t exact_blocks = 0;
};

struct FormatTotal {
  std::string format;
  uint64_t weights = 0;
  uint64_t bytes_before = 0;
  uint64_t bytes_after = 0;
  double sqnr_db = 0;         // over all elements
  uint64_t cast_blocks = 0;   // as QuantizedWeight has them
  uint64_t exact_blocks = 0;  //
};

// What the recipe says of one module in memory.
struct ModuleFormat {
  std::string name;
  std::string kind;  // "linear", "experts", "convolution", "embedding", "attention" or "router"
  std::string format;
  uint64_t block_size = 0;
  uint64_t experts = 0;          // of a container
  std::vector<std::string> hub;  // the hub's modules
};

struct QuantizeReport {
  std::string recipe;  // as it was asked for; empty for dequantizing
  std::string architecture;
  std::string mapping;                       // "transformers 5.17.0"; empty where the class is unknown
  std::string kv_cache;                      // "FP8", "NVFP4", ...; empty where it is not quantized
  std::vector<std::string> exclude_modules;  // of both config files; none in mixed precision, whose layers are listed
  uint64_t input_tensors = 0;
  uint64_t output_tensors = 0;
  uint64_t bytes_before = 0;  // of the input's tensors
  uint64_t bytes = 0;         // of the files written
  uint64_t files = 0;
  uint64_t cloned_bytes = 0;
  std::vector<ModuleFormat> modules;     // in about the order of the model
  std::vector<QuantizedWeight> weights;  // worst first, once data is written
  std::vector<FormatTotal> totals;
  std::vector<std::string> left_out;  // safetensors files that are no shards of the checkpoint
  std::vector<std::string> notes;
  std::vector<Warning> warnings;
};

// Memory: headers, names, and buffers of less than 500 MB; never the size of a tensor or file. Errors: any kind; a
// recipe that needs a calibration and has none is a kUnsupportedRecipe. Nothing is left at `output` but a complete
// result.
Result<QuantizeReport> Quantize(const QuantizeOptions& options);
// The same without reading or writing data.
Result<QuantizeReport> PlanQuantize(const QuantizeOptions& options);

struct DequantizeOptions {
  std::filesystem::path input;   // a quantized checkpoint in hub names
  std::filesystem::path output;  // must not exist, or be an empty folder
  bool repair_index = false;
  bool follow_links = false;
  bool all_files = false;  // as RevertOptions::all_files
  std::optional<uint64_t> max_shard_bytes;
  Reflink reflink = Reflink::kAuto;
  int threads = 0;
  std::function<void(uint64_t done, uint64_t total)> progress;
  const std::atomic<bool>* cancel = nullptr;
};

// Every quantized matrix as BF16, and the configs without what they say of quantization. Errors:
// kQuantConversionUnsupported for each weight in a format that is not dequantized; otherwise as Quantize.
Result<QuantizeReport> Dequantize(const DequantizeOptions& options);

std::string QuantizeJson(const QuantizeReport& report);
// The worst `most` weights and the totals by format as tables.
std::string QuantizeText(const QuantizeReport& report, size_t most = 10);
// What was done in one line: "quantized with RECIPE: 1.24 GB in 99 tensors became ...".
std::string QuantizeSummary(const QuantizeReport& report);
// A line a module: what the recipe makes of it.
std::string QuantizePlanText(const QuantizeReport& report);

struct RecipeInfo {
  std::string name;
  std::string description;
  std::string refused;  // why it can't be carried out; empty where it can
};

// The built-in recipes and presets, and the KV presets for RecipeOptions::kv_cache.
std::vector<RecipeInfo> BuiltInRecipeInfos();
std::vector<RecipeInfo> BuiltInKvCacheInfos();
std::string RecipesText();
std::string RecipesJson();

}  // namespace quantport
