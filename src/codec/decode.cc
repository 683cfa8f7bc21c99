// What decoding has in common: experts one after the other, and inputs that were multiplied before.
#include <fmt/format.h>

#include <algorithm>

#include "base/checked.h"
#include "codec/families.h"

namespace quantport {
namespace {

Status DecodeExperts(const CodedWeight& weight, const PartReader& reader, uint64_t first, uint64_t rows,
                     quantize::ElementType type, std::span<uint8_t> out) {
  const Codec& codec = CodecOf(weight.format);
  const uint64_t each = weight.shape[weight.shape.size() - 2];
  const uint64_t row_bytes = weight.shape.back() * quantize::ElementBytes(type);
  for (uint64_t row = first; row < first + rows;) {
    const uint64_t count = std::min(each - row % each, first + rows - row);
    const auto part = out.subspan((row - first) * row_bytes, count * row_bytes);
    if (auto s = codec.decode({weight, reader, row / each, row % each, count, part, type}); !s) return s;
    row += count;
  }
  return {};
}

}  // namespace

Result<float> DecodeJob::ReadScalar(Role role) const {
  const CodedPart& part = Part(role);
  auto read = ReadNumbers(reader, part, part.Elements() == Experts() ? expert : 0, 1);
  if (!read) return read.errors();
  return read->front();
}

Result<std::vector<float>> ReadBlockScales(const DecodeJob& job, uint64_t block_rows, uint64_t block_columns) {
  const uint64_t across = CeilDiv(job.Columns(), block_columns);
  const uint64_t row = job.expert * CeilDiv(job.RowsOfExpert(), block_rows) + job.first / block_rows;
  return ReadNumbers(job.reader, job.Part(Role::kScale), row * across, CeilDiv(job.rows, block_rows) * across);
}

std::optional<std::string> WhyNotDecoded(const CodedWeight& weight) {
  const Codec& codec = CodecOf(weight.format);
  if (!codec.unread.empty()) return fmt::format(", of which nothing is read: {}", codec.unread);
  if (weight.shape.size() != 2 && weight.shape.size() != 3)
    return fmt::format(" of {} dimensions", weight.shape.size());
  if (weight.shape.size() == 3) {
    if (std::find(weight.shape.begin(), weight.shape.end(), 0u) != weight.shape.end()) return " without elements";
    if (weight.Find(Role::kSmoothing) != nullptr) return " with experts in one tensor and inputs scaled before";
  }
  if (weight.Find(Role::kValues) == nullptr || weight.Find(Role::kScale) == nullptr) return " without codes or scales";
  if (const CodedPart* smoothing = weight.Find(Role::kSmoothing);
      smoothing != nullptr && !IsScaleType(smoothing->dtype))
    return fmt::format(" with inputs scaled by {}", DTypeName(smoothing->dtype));
  return codec.why_unread == nullptr ? std::nullopt : codec.why_unread(weight);
}

Status DecodeRows(const CodedWeight& weight, const PartReader& reader, uint64_t first, uint64_t rows,
                  quantize::ElementType type, std::span<uint8_t> out) {
  const CodedPart* smoothing = weight.Find(Role::kSmoothing);
  if (smoothing == nullptr) return DecodeExperts(weight, reader, first, rows, type, out);
  // Rounded once, at the end.
  const uint64_t columns = weight.shape.back();
  std::vector<float> numbers(rows * columns);
  const std::span<uint8_t> bytes(reinterpret_cast<uint8_t*>(numbers.data()), numbers.size() * sizeof(float));
  if (auto s = DecodeExperts(weight, reader, first, rows, quantize::ElementType::kF32, bytes); !s) return s;
  auto factors = ReadNumbers(reader, *smoothing, 0, columns);
  if (!factors) return factors.errors();
  const quantize::Output output = {out.data(), type};
  for (size_t i = 0; i < numbers.size(); ++i) output.Store(i, numbers[i] * (*factors)[i % columns]);
  return {};
}

uint64_t ReadStep(const CodedWeight& weight) {
  const Codec& codec = CodecOf(weight.format);
  return codec.read_step == nullptr ? 1 : codec.read_step(weight);
}

}  // namespace quantport
