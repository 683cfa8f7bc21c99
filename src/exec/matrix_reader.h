// Reads rows of a planned matrix as numbers, whatever they are stored as.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "exec/stored_bytes.h"
#include "exec/transfer.h"
#include "io/buffer.h"
#include "plan/quantize_plan.h"
#include "quantport/error.h"

namespace quantport {

// Safe in several threads.
class MatrixReader {
 public:
  // All must outlive this.
  MatrixReader(const QuantizePlan& plan, const Sources& sources, std::deque<SourceFile>* readers)
      : plan_(plan), sources_(sources), readers_(*readers), stored_(plan.files, sources) {}

  // Fills the first rows * columns elements of the buffer, of the matrix's dtype. `first_row` is a multiple of RowStep.
  // Requires a buffer that begins on a page and has kReadSlack bytes to spare. Through the page cache where the rows
  // will be read again.
  Status Read(const PlannedMatrix& matrix, uint64_t first_row, uint64_t rows, bool again,
              std::span<std::byte> buffer) const;

  // The powers of two that those rows are stored with, where they become its scales (Encoding::cast).
  Result<std::vector<uint8_t>> ReadPowers(const PlannedMatrix& matrix, uint64_t first_row, uint64_t rows) const;

 private:
  Status ReadPlain(const PlannedMatrix& matrix, uint64_t first_row, uint64_t rows, bool again,
                   std::span<std::byte> buffer) const;
  Status ReadCoded(const PlannedMatrix& matrix, uint64_t first_row, uint64_t rows, std::span<std::byte> buffer) const;

  const QuantizePlan& plan_;
  const Sources& sources_;
  std::deque<SourceFile>& readers_;
  StoredBytes stored_;
};

// How many rows must be read and written together: those that share a byte or a scale.
uint64_t RowStep(const PlannedMatrix& matrix);

}  // namespace quantport
