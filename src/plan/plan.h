// What will be written and where every byte comes from: fixed before the first output is opened.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/file_stamp.h"
#include "plan/conversion.h"
#include "quantport/error.h"
#include "safetensors/index.h"
#include "safetensors/table.h"

namespace quantport {

// A file that is read.
struct PlanSource {
  std::string address;                  // what Storage::OpenFile opens it by
  std::optional<FileStamp> stamp = {};  // when its header was read; none: not compared

  friend bool operator==(const PlanSource&, const PlanSource&) = default;
};

// Where a stored tensor's data lies. What is read for a tensor is read within it.
struct SourceTensor {
  std::string name;
  uint32_t source = 0;  // index into Plan::sources
  uint64_t offset = 0;  // in that file
  uint64_t bytes = 0;
  DType dtype = DType::kU8;

  friend bool operator==(const SourceTensor&, const SourceTensor&) = default;
};

// A straight copy between file offsets.
struct CopyRange {
  uint32_t source = 0;  // index into Plan::sources, or kZeros
  uint64_t from = 0;
  uint64_t to = 0;
  uint64_t bytes = 0;
  uint32_t step = 0;  // computed on the way: 0 nothing, else 1 + index into Plan::steps

  friend bool operator==(const CopyRange&, const CopyRange&) = default;
};

struct PlannedTensor {
  TensorInfo info;  // with offsets in the output's data section
  FormatId format = FormatId::kPlain;
  std::vector<Run> runs;  // of stored tensors, in the order of the target
  // Instead of runs: bytes that no stored tensor has, or elements that lie too far apart for a copy of each.
  std::optional<Array> gathered;
  bool computed = false;   // its bytes are made of what weights hold (plan/quantize_plan.h)
  uint32_t converted = 0;  // the tensor that it is of the conversion

  friend bool operator==(const PlannedTensor&, const PlannedTensor&) = default;
};

struct ByteRange {
  uint64_t begin = 0;
  uint64_t end = 0;

  friend bool operator==(const ByteRange&, const ByteRange&) = default;
};

// The data of an output file as that of a source file: byte i of the one is byte i of the other, but for `rewritten`
// and for what follows the first `kept` bytes.
struct StayingData {
  uint32_t source = 0;               // index into Plan::sources
  uint64_t source_data_start = 0;    // in that file; the output's is congruent to it modulo PlanOptions::block_bytes
  uint64_t kept = 0;                 // all of the source's data
  std::vector<ByteRange> rewritten;  // of the data: the same bytes in another order
  bool same_header = false;          // every name, dtype, shape and place as in the source: nothing is to be done

  friend bool operator==(const StayingData&, const StayingData&) = default;
};

struct PlannedFile {
  std::string name;
  std::string header;  // the file's bytes up to its data
  std::vector<PlannedTensor> tensors;
  uint64_t bytes = 0;
  std::optional<StayingData> stays = {};
  std::string obstacle = {};  // why no data stays, where staying was asked for

  friend bool operator==(const PlannedFile&, const PlannedFile&) = default;
};

// Two byte sequences that must be equal, each as ranges of source files (`to` counts from 0).
struct PlannedCheck {
  std::string leaf;
  std::string tensor_a;
  std::string tensor_b;
  std::vector<CopyRange> a;
  std::vector<CopyRange> b;

  friend bool operator==(const PlannedCheck&, const PlannedCheck&) = default;
};

// Scalars of which the result gets the largest, or the smallest where they are reciprocals.
struct PlannedMerge {
  std::string leaf;
  bool reciprocal = false;
  DType dtype = DType::kF32;
  std::vector<CopyRange> scalars;  // one element each
  std::vector<std::string> names;  // of the tensors they are

  friend bool operator==(const PlannedMerge&, const PlannedMerge&) = default;
};

// A file without tensors that goes over as it is.
struct PlannedCopy {
  std::string name;                     // in the output, relative
  std::string address;                  // what Storage::OpenFile opens it by
  std::optional<FileStamp> stamp = {};  // when it was planned; none: not compared

  friend bool operator==(const PlannedCopy&, const PlannedCopy&) = default;
};

// Plain data: whoever has it and the folders that it names can carry it out, in another process as well
// (plan/plan_bytes.h), or a part of it (plan/plan_parts.h).
struct Plan {
  std::vector<PlanSource> sources;    // one for each shard of the export
  std::vector<SourceTensor> tensors;  // of the export; runs refer to them
  std::vector<PlannedFile> files;
  std::vector<PlannedCheck> checks;
  std::vector<PlannedMerge> merges;
  std::vector<ScaleStep> steps;
  std::optional<Index> index;                // of the output; absent for a single file
  std::map<std::string, std::string> texts;  // files without tensors that are written: name -> content
  std::vector<PlannedCopy> copies;           // and those that go over as they are; in no case one of `texts`
  std::string report;                        // what planning found, as --json prints it; "" where nobody asked

  uint64_t TotalBytes() const {
    uint64_t total = 0;
    for (const PlannedFile& file : files) total += file.bytes;
    return total;
  }

  friend bool operator==(const Plan&, const Plan&) = default;
};

struct PlanOptions {
  std::optional<uint64_t> max_shard_bytes;  // new shards of at most this many data bytes; a larger tensor gets its own
  const Index* index = nullptr;             // of the export, for its other metadata
  bool sharded = false;                     // the export is: keep its shards' names and write an index
  // Where not 0: data stays where its shard has it as far as that can be, and begins at the shard's place modulo so
  // many bytes, so that whole blocks can be cloned, read and written directly.
  uint64_t block_bytes = 0;
  bool keep_header_room = false;  // data that stays begins no earlier than it did
};

// Lays the conversion out in files. Shards keep their names and their order of data; a tensor goes where its first
// source was. Errors: kInvalidHeader where a header passes the cap, kQuantConversionUnsupported for cuts inside bytes.
Result<Plan> MakePlan(const Conversion& conversion, const TensorTable& table, const std::filesystem::path& directory,
                      const PlanOptions& options);

// Bytes [begin, end) of an output file.
struct Stretch {
  uint64_t begin = 0;
  uint64_t end = 0;
};

// Where a file's computed tensors stand, in its order, neighbours joined.
std::vector<Stretch> ComputedStretches(const PlannedFile& file);

// The ranges that make up a file's data, in the order of `to`, neighbours joined across tensors. Gathered tensors are
// left out.
std::vector<CopyRange> FileRanges(const Plan& plan, const PlannedFile& file);

}  // namespace quantport
