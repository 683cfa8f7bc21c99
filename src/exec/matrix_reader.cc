#include "exec/matrix_reader.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "codec/codec.h"
#include "exec/gather.h"

namespace quantport {
namespace {

// More pieces than this are picked out of the file instead of being read one by one.
constexpr uint64_t kMostRuns = 64;

void NameTensor(const PlannedMatrix& matrix, Errors* errors) {
  for (Error& error : *errors) {
    if (error.tensor.empty()) error.tensor = ValueName(matrix);
  }
}

}  // namespace

uint64_t RowStep(const PlannedMatrix& matrix) {
  return std::lcm(ReadStep(matrix.source.coded), WriteStep(matrix.target));
}

Status MatrixReader::Read(const PlannedMatrix& matrix, uint64_t first_row, uint64_t rows, bool again,
                          std::span<std::byte> buffer) const {
  return matrix.source.coded.format == FormatId::kPlain ? ReadPlain(matrix, first_row, rows, again, buffer)
                                                        : ReadCoded(matrix, first_row, rows, buffer);
}

Status MatrixReader::ReadPlain(const PlannedMatrix& matrix, uint64_t first_row, uint64_t rows, bool again,
                               std::span<std::byte> buffer) const {
  const Array part = Slice(matrix.source.array, 0, first_row, rows);
  const uint64_t bytes = rows * matrix.columns * static_cast<uint64_t>(DTypeBits(matrix.dtype)) / 8;
  if (RunCount(part) > std::max(kMostRuns, rows))
    return Gather(part, plan_.files.tensors, sources_, nullptr, 0, buffer.first(bytes));
  auto runs = Runs(part);
  if (!runs) return runs.errors();
  for (const Run& run : *runs) {
    if (run.tensor == kZeros) {
      std::memset(buffer.data() + run.target, 0, run.bytes);
      continue;
    }
    const SourceTensor& tensor = plan_.files.tensors[run.tensor];
    if (auto s = CheckWithin(tensor, run.source, run.bytes); !s) return s;
    const uint64_t from = tensor.offset + run.source;
    auto status = again ? sources_[tensor.source].ReadAt(buffer.subspan(run.target, run.bytes), from)
                        : readers_[tensor.source].Read(buffer, run.target, run.bytes, from);
    if (!status) return status;
  }
  return {};
}

Status MatrixReader::ReadCoded(const PlannedMatrix& matrix, uint64_t first_row, uint64_t rows,
                               std::span<std::byte> buffer) const {
  const quantize::ElementType type = ElementTypeOf(matrix.dtype);
  const std::span<uint8_t> out(reinterpret_cast<uint8_t*>(buffer.data()),
                               rows * matrix.columns * quantize::ElementBytes(type));
  auto status = DecodeRows(matrix.source.coded, stored_, first_row, rows, type, out);
  if (!status) NameTensor(matrix, &status.errors());
  return status;
}

Result<std::vector<uint8_t>> MatrixReader::ReadPowers(const PlannedMatrix& matrix, uint64_t first_row,
                                                      uint64_t rows) const {
  auto powers = quantport::ReadPowers(matrix.source.coded, matrix.target, stored_, first_row, rows);
  if (!powers) NameTensor(matrix, &powers.errors());
  return powers;
}

}  // namespace quantport
