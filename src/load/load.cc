#include "load/load.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "io/file.h"
#include "load/configs.h"

namespace quantport {
namespace {

constexpr uint64_t kMaxMappingBytes = 256 << 20;
// What errors and reports call a mapping that is in no file.
constexpr const char* kMappingText = "the mapping given as text";

// The folder that a reference is, or the one that its index file is in.
std::string FolderOf(const Storage& storage, const std::string& reference) {
  if (storage.IsFolder(reference)) return reference;
  const std::string parent = std::filesystem::path(reference).parent_path().string();
  return parent.empty() ? "." : parent;
}

}  // namespace

Result<ModelMapping> LoadModel(const std::string& config_text, const std::string& config_file,
                               const MappingOptions& options) {
  if (options.mapping_file && options.mapping_json) {
    return Error{ErrorKind::kInvalidMapping,
                 "a mapping file and a mapping as text at once",
                 options.mapping_file->string(),
                 {},
                 "leave one of them out"};
  }
  if ((options.mapping_file || options.mapping_json) && options.transformers_version) {
    return Error{ErrorKind::kInvalidMapping,
                 "a mapping of one's own and a transformers version at once",
                 options.mapping_file ? options.mapping_file->string() : kMappingText,
                 {},
                 "the mapping says whose it is: leave the version out"};
  }
  std::string text;
  std::string file;
  if (options.mapping_json) {
    text = *options.mapping_json;
    file = kMappingText;
  } else if (options.mapping_file) {
    auto read = ReadTextFile(*options.mapping_file, kMaxMappingBytes);
    if (!read) return read.errors();
    text = std::move(*read);
    file = options.mapping_file->string();
  }
  return ResolveMapping(config_text, config_file, text, file, options.architecture, options.transformers_version);
}

std::optional<std::string> ClassNote(const ResolvedModel& model) {
  if (!model.stated_class) return std::nullopt;
  return fmt::format("config.json's class {} is no class of transformers: by its model_type it is {}",
                     *model.stated_class, model.architecture);
}

Result<std::optional<ResolvedModel>> LoadReferenceModel(const Storage& storage, const std::string& reference,
                                                        const MappingOptions& options, const ModelMapping& part) {
  const std::optional<ResolvedModel> unknown;
  auto folder = storage.OpenFolder(FolderOf(storage, reference));
  if (!folder) return folder.errors();
  if (!(*folder)->Has(kConfigName)) return unknown;
  auto text = ReadConfigText(**folder, kConfigName);
  if (!text) return text.errors();
  MappingOptions same = options;
  same.architecture.reset();
  constexpr std::string_view kPrefix = "transformers ";
  if (!same.mapping_file && !same.mapping_json && part.version.starts_with(kPrefix))
    same.transformers_version = part.version.substr(kPrefix.size());
  auto model = LoadModel(*text, (*folder)->AddressOf(kConfigName), same);
  if (!model || model->resolved.unmapped) return unknown;
  return std::optional(std::move(model->resolved));
}

ReferenceView MakeReferenceView(ReferenceNames names) {
  ReferenceView view;
  NamedValues values = FindValues(names.names);
  view.keys = std::move(values.keys);
  view.leaves = std::move(values.leaves);
  if (!names.table) return view;
  // A reference with defects of its own still has names to go by; only its shapes are not used then.
  const auto units = RecognizeUnits(*names.table, {});
  if (!units) return view;
  for (const WeightUnit& unit : *units) {
    const bool weight = unit.role != UnitRole::kCacheScale;  // which goes by its projection's key
    if (weight && unit.weight.format != FormatId::kUnrecognized)
      view.logical_shapes.emplace(unit.key, unit.weight.shape);
  }
  return view;
}

}  // namespace quantport
