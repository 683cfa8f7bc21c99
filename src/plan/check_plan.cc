#include "plan/check_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/checked.h"

namespace quantport {
namespace {

bool IsInside(std::string_view name) {
  const std::filesystem::path path(name);
  return !name.empty() && name.find('\0') == std::string_view::npos && path.is_relative() && path.has_filename() &&
         std::none_of(path.begin(), path.end(), [](const auto& part) { return part == ".." || part == "."; });
}

// offset + bytes, where that is a number.
bool Fits(uint64_t offset, uint64_t bytes) { return CheckedAdd(offset, bytes).has_value(); }

class PlanCheck {
 public:
  PlanCheck(const QuantizePlan& plan, std::string_view file) : plan_(plan), files_(plan.files), file_(file) {}

  Status Run() {
    for (const SourceTensor& tensor : files_.tensors) {
      if (tensor.source >= files_.sources.size() || !Fits(tensor.offset, tensor.bytes))
        return Misfit("it is in no source", tensor.name);
    }
    if (auto status = CheckNames(); !status) return status;
    if (auto status = CheckScales(); !status) return status;
    for (const PlannedFile& file : files_.files) {
      if (auto status = CheckFile(file); !status) return status;
    }
    if (plan_.groups > plan_.matrices.size()) return Misfit("more groups than matrices", "");
    for (const PlannedMatrix& matrix : plan_.matrices) {
      if (auto status = CheckMatrix(matrix); !status) return status;
    }
    for (const PlannedScalar& scalar : plan_.scalars) {
      if (!HasPlace(scalar.place, sizeof(float))) return Misfit("a scalar has no place", "");
    }
    return {};
  }

 private:
  Error Misfit(std::string message, const std::string& tensor) const {
    return {ErrorKind::kIo, "the plan contradicts itself: " + message, std::string(file_), tensor, "make it again"};
  }

  Status CheckNames() const {
    std::set<std::string_view> names;
    const auto add = [&](std::string_view name, bool folders) {
      return IsInside(name) && (folders || name.find('/') == std::string_view::npos) && names.insert(name).second;
    };
    bool fit = !files_.index || add(kIndexName, false);
    for (const PlannedFile& file : files_.files) fit = fit && add(file.name, false);
    for (const auto& [name, text] : files_.texts) fit = fit && add(name, true);
    for (const PlannedCopy& copy : files_.copies) fit = fit && add(copy.name, true);
    if (!fit) return Misfit("a name of a file leads out of the folder, or two files have it", "");
    return {};
  }

  bool IsRange(const CopyRange& range) const {
    return range.source < files_.sources.size() && Fits(range.from, range.bytes);
  }

  Status CheckScales() const {
    const auto are_ranges = [&](const std::vector<CopyRange>& ranges) {
      return std::all_of(ranges.begin(), ranges.end(), [&](const CopyRange& range) { return IsRange(range); });
    };
    for (const PlannedCheck& check : files_.checks) {
      if (!are_ranges(check.a) || !are_ranges(check.b)) return Misfit("scales are in no source", check.tensor_b);
    }
    for (const PlannedMerge& merge : files_.merges) {
      const bool elements = std::all_of(merge.scalars.begin(), merge.scalars.end(), [&](const CopyRange& range) {
        return range.bytes * 8 == static_cast<uint64_t>(DTypeBits(merge.dtype));
      });
      if (!are_ranges(merge.scalars) || !elements || merge.scalars.size() != merge.names.size() || merge.names.empty())
        return Misfit("scales to be merged are in no source", merge.leaf);
    }
    for (const ScaleStep& step : files_.steps) {
      if (step.merge >= files_.merges.size() || step.part >= files_.merges[step.merge].scalars.size())
        return Misfit("a scale is merged with nothing", "");
    }
    return {};
  }

  Status CheckFile(const PlannedFile& file) const {
    uint64_t at = 0;
    for (const PlannedTensor& tensor : file.tensors) {
      const auto bytes = TensorBytes(tensor.info.dtype, tensor.info.shape);
      if (!bytes || !Fits(at, *bytes) || tensor.info.begin != at || tensor.info.end != at + *bytes)
        return Misfit("its place is not behind that of the one before it", tensor.info.name);
      at = tensor.info.end;
      if (!IsMade(tensor, *bytes)) return Misfit("what it is made of is not all of it", tensor.info.name);
    }
    if (!Fits(file.header.size(), at) || file.bytes != file.header.size() + at)
      return Misfit(fmt::format("the size of {} is not that of its tensors", file.name), "");
    if (file.stays && !IsStaying(*file.stays, at)) return Misfit(fmt::format("{} can't stay", file.name), "");
    return {};
  }

  bool IsStaying(const StayingData& stays, uint64_t bytes) const {
    return stays.source < files_.sources.size() && stays.kept <= bytes && Fits(stays.source_data_start, stays.kept) &&
           std::all_of(stays.rewritten.begin(), stays.rewritten.end(),
                       [&](const ByteRange& range) { return range.begin <= range.end && range.end <= stays.kept; });
  }

  bool IsMade(const PlannedTensor& tensor, uint64_t bytes) const {
    if (tensor.computed) return tensor.runs.empty() && !tensor.gathered;
    if (tensor.gathered)
      return tensor.runs.empty() && tensor.gathered->dtype == tensor.info.dtype && IsArray(*tensor.gathered, bytes);
    uint64_t at = 0;
    for (const auto& run : tensor.runs) {
      if (run.target != at || !Fits(at, run.bytes) || !IsSource(run.tensor, run.source, run.bytes)) return false;
      if (run.step > files_.steps.size()) return false;
      at += run.bytes;
    }
    return at == bytes;
  }

  bool IsSource(uint32_t tensor, uint64_t offset, uint64_t bytes) const {
    if (tensor == kZeros) return true;
    return tensor < files_.tensors.size() && Fits(offset, bytes) && offset + bytes <= files_.tensors[tensor].bytes;
  }

  bool IsArray(const Array& array, uint64_t bytes) const {
    if (TensorBytes(array.dtype, array.shape) != bytes) return false;
    if (!array.literal.empty()) return array.literal.size() == bytes && array.blocks.empty();
    const auto bits = static_cast<uint64_t>(DTypeBits(array.dtype));
    return bits % 8 == 0 && std::all_of(array.blocks.begin(), array.blocks.end(),
                                        [&](const Block& block) { return IsBlock(block, array, bits); });
  }

  bool IsBlock(const Block& block, const Array& array, uint64_t bits) const {
    if (block.dims.size() != array.shape.size() || block.step > files_.steps.size()) return false;
    uint64_t last = block.offset;
    for (size_t d = 0; d < array.shape.size(); ++d) {
      const BlockDim& dim = block.dims[d];
      if (!Fits(dim.origin, dim.extent) || dim.origin + dim.extent > array.shape[d]) return false;
      if (dim.extent == 0) continue;
      const auto distance = CheckedMul(dim.extent - 1, dim.stride);
      const auto sum = distance ? CheckedAdd(last, *distance) : std::nullopt;
      if (!sum) return false;
      last = *sum;
    }
    return Fits(last, bits) && IsSource(block.tensor, 0, CeilDiv(last + bits, 8));
  }

  bool HasPlace(const std::optional<OutputPlace>& place, uint64_t bytes) const {
    if (!place) return true;
    if (place->file >= files_.files.size() || !Fits(place->offset, bytes)) return false;
    const PlannedFile& file = files_.files[place->file];
    return place->offset >= file.header.size() && place->offset + bytes <= file.bytes;
  }

  Status CheckMatrix(const PlannedMatrix& matrix) const {
    const MatrixSource& source = matrix.source;
    const bool number = matrix.dtype == DType::kBF16 || matrix.dtype == DType::kF16 || matrix.dtype == DType::kF32;
    const auto bytes = TensorBytes(matrix.dtype, std::vector<uint64_t>{matrix.rows, matrix.columns});
    if (!number || !bytes) return Misfit("it is no matrix of numbers", matrix.name);
    if (matrix.group && *matrix.group >= plan_.groups) return Misfit("it belongs to no group", matrix.name);
    if (!HasPlace(matrix.codes, 0) || !HasPlace(matrix.scales, 0) || !HasPlace(matrix.scalar, sizeof(float)))
      return Misfit("it has no place", matrix.name);
    const Target& target = matrix.target;
    Shape shape = {matrix.rows, matrix.columns};
    if (matrix.batched > 0) shape = {matrix.batched, matrix.rows / matrix.batched, matrix.columns};
    const auto variant = WrittenVariant(target.encoding, shape);
    if (target.shape != shape || (matrix.batched > 0 && matrix.rows % matrix.batched != 0) || !variant ||
        *variant != target.variant)
      return Misfit("it is written in no form of its format", matrix.name);
    if (target.encoding.cast && !(matrix.group && CanCast(source.coded, target)))
      return Misfit("it is stored with no powers of two that could become its scales", matrix.name);
    if (source.coded.format == FormatId::kPlain) {
      const bool whole = source.array.dtype == matrix.dtype && source.array.literal.empty() &&
                         source.array.shape == std::vector<uint64_t>{matrix.rows, matrix.columns};
      if (!whole || !IsArray(source.array, *bytes)) return Misfit("what it is read from is not all of it", matrix.name);
      return {};
    }
    for (const CodedPart& part : source.coded.parts) {
      const bool there = part.tensor < files_.tensors.size() && files_.tensors[part.tensor].dtype == part.dtype;
      if (!there || TensorBytes(part.dtype, part.shape) != files_.tensors[part.tensor].bytes)
        return Misfit("it is in no source", matrix.name);
    }
    uint64_t rows = 1;
    for (size_t d = 0; d + 1 < source.coded.shape.size(); ++d) rows *= source.coded.shape[d];
    if (!HasItsParts(source.coded) || rows != matrix.rows || source.coded.shape.back() != matrix.columns)
      return Misfit("its parts are not those of its format", matrix.name);
    return {};
  }

  const QuantizePlan& plan_;
  const Plan& files_;
  std::string_view file_;
};

}  // namespace

Status CheckPlan(const QuantizePlan& plan, std::string_view file) { return PlanCheck(plan, file).Run(); }

}  // namespace quantport
