#include "load/recipes.h"

#include <fmt/format.h>

#include <system_error>

#include "base/text.h"
#include "checkpoint/checkpoint.h"
#include "io/file.h"

namespace quantport {
namespace {

constexpr uint64_t kMaxRecipeBytes = 1 << 20;

bool IsScalar(const TensorInfo& tensor) {
  return tensor.dtype == DType::kF32 && (tensor.shape.empty() || tensor.shape == std::vector<uint64_t>{1});
}

}  // namespace

RecipeSources SourcesOf(const std::vector<std::filesystem::path>& folders) {
  RecipeSources sources;
  sources.read = [](const std::string& path) -> Result<std::optional<std::string>> {
    std::error_code code;
    if (!std::filesystem::is_regular_file(path, code)) return std::optional<std::string>();
    auto text = ReadTextFile(path, kMaxRecipeBytes);
    if (!text) return text.errors();
    return std::optional(std::move(*text));
  };
  for (const auto& folder : folders) sources.folders.push_back(folder.string());
  return sources;
}

Result<Calibration> ReadCalibration(const Storage& storage, const std::string& address) {
  auto file = storage.OpenFile(address);
  if (!file) return file.errors();
  auto header = ReadHeader(**file);
  if (!header) return header.errors();
  Calibration calibration;
  Errors errors;
  for (const TensorInfo& tensor : header->tensors) {
    const std::string_view leaf = SplitLeaf(tensor.name).leaf;
    if (!IsScalar(tensor) || (leaf != "input_amax" && leaf != "k_amax" && leaf != "v_amax")) {
      errors.push_back({ErrorKind::kUnsupportedRecipe,
                        fmt::format("a {} of {} dimensions", DTypeName(tensor.dtype), tensor.shape.size()), address,
                        tensor.name,
                        "a calibration holds F32 scalars <module>.input_amax, <attention>.k_amax and .v_amax"});
      continue;
    }
    float amax = 0;
    if (auto s = (*file)->ReadAt(std::as_writable_bytes(std::span(&amax, 1)), header->data_start + tensor.begin); !s)
      return s.errors();
    calibration.emplace(tensor.name, amax);
  }
  if (!errors.empty()) return errors;
  return calibration;
}

}  // namespace quantport
