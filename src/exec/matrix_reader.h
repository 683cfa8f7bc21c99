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
#include "quantize/element.h"
#include "quantport/error.h"

namespace quantport {

// Safe in several threads.
class MatrixReader {
 public:
  // All must outlive this.
  MatrixReader(const QuantizePlan& plan, const Sources& sources, std::deque<SourceFile>* readers)
      : plan_(plan), sources_(sources), readers_(*readers), stored_(plan.files, sources) {}

  // Fills the first rows * columns elements of the buffer, of the matrix's dtype. `first_row` is a multiple of the
  // matrix's tile of rows. Requires a buffer that begins on a page and has kReadSlack bytes to spare. Through the page
  // cache where the rows will be read again.
  Status Read(const PlannedMatrix& matrix, uint64_t first_row, uint64_t rows, bool again,
              std::span<std::byte> buffer) const;

 private:
  Status ReadPlain(const PlannedMatrix& matrix, uint64_t first_row, uint64_t rows, bool again,
                   std::span<std::byte> buffer) const;
  Status ReadStored(const PlannedMatrix& matrix, uint64_t first_row, uint64_t rows, std::span<std::byte> buffer) const;
  Status Dequantize(const PlannedMatrix& matrix, uint64_t first_row, uint64_t rows, std::span<uint8_t> out,
                    quantize::ElementType type) const;
  Status DequantizePart(const PlannedMatrix& matrix, uint64_t expert, uint64_t local, uint64_t rows,
                        std::span<uint8_t> out, quantize::ElementType type) const;
  Result<float> ReadScalar(const MatrixSource& source, uint32_t tensor, uint64_t expert) const;
  Result<std::vector<float>> ReadScales(uint32_t tensor, uint64_t first, uint64_t count) const;

  const QuantizePlan& plan_;
  const Sources& sources_;
  std::deque<SourceFile>& readers_;
  StoredBytes stored_;
};

// Whether blocks are made of one column of several rows, as those of experts with inputs before outputs.
bool BlocksRunDown(const PlannedMatrix& matrix);

// How many rows must be read together: those that share a byte or a scale.
uint64_t RowStep(const PlannedMatrix& matrix);

}  // namespace quantport
