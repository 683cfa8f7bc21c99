// Which bytes of an output file can stay where a source file has them.
//
// A renamed tensor, a row slice of one and an expert of a stack are all byte ranges that stand in the source already.
// If such ranges cover a source file's data without a hole, the output can have the same data section under another
// header, and only what is new is appended: scalars that several tensors get.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "plan/plan.h"
#include "safetensors/table.h"

namespace quantport {

struct Placement {
  std::vector<size_t> order;         // the tensors in the order of their data
  uint64_t kept = 0;                 // data bytes of the source, all of them; what follows is appended
  std::vector<ByteRange> rewritten;  // of the kept data: where the same bytes stand in another order
  // Why nothing can stay: a stored tensor that nothing is made of would be a hole, which the format forbids.
  std::string obstacle;
};

// Places `tensors`, which make up one output file, over the data of shard `shard`. Of a tensor's `info` only dtype and
// size (end - begin) are read.
Placement PlaceOver(std::span<const PlannedTensor> tensors, const TensorTable& table, uint32_t shard);

// Where elements of the dtype must start for a reader that maps the file and hands out pointers into it: a multiple of
// so many bytes.
uint64_t Alignment(DType dtype);

}  // namespace quantport
