// How the codes of each format become numbers and numbers become codes: one file a family, one table of them all.
//
// A codec sees whole rows at a time and reads through a PartReader. Planning knows nothing of it: which tensors there
// are and what shapes they have is the format's (src/format).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "codec/part_reader.h"
#include "format/coded_weight.h"
#include "quantize/element.h"
#include "quantize/error_sums.h"
#include "quantize/scales.h"
#include "quantport/error.h"

namespace quantport {

// Rows of one expert that are to be decoded, counted within it; a weight without experts counts as one.
struct DecodeJob {
  const CodedWeight& weight;
  const PartReader& reader;
  uint64_t expert = 0;
  uint64_t first = 0;
  uint64_t rows = 0;
  std::span<uint8_t> out;
  quantize::ElementType type = quantize::ElementType::kF32;

  uint64_t Experts() const { return weight.shape.size() == 3 ? weight.shape[0] : 1; }
  uint64_t RowsOfExpert() const { return weight.shape[weight.shape.size() - 2]; }
  uint64_t Columns() const { return weight.shape.back(); }
  // Among those of all experts.
  uint64_t FirstRow() const { return expert * RowsOfExpert() + first; }
  const CodedPart& Part(Role role) const { return *weight.Find(role); }

  // `row_bytes` bytes of a part for each of the rows, which follow each other.
  Result<std::vector<uint8_t>> ReadRows(Role role, uint64_t row_bytes) const {
    return reader.Read(Part(role), FirstRow() * row_bytes, rows * row_bytes);
  }
  // A number that the weight has once, or each of its experts.
  Result<float> ReadScalar(Role role) const;
};

// Rows that are to be encoded, and where their part of the result goes.
struct EncodeJob {
  const Target& target;
  quantize::Matrix rows;
  float amax = 0;  // of all that share the one scale, where the format has one
  const quantize::Numerics& numerics;
  std::span<uint8_t> codes;
  std::span<uint8_t> scales;  // of those that the format has several of
  quantize::ErrorSums* sums;
  std::span<const uint8_t> powers = {};  // where Encoding::cast: of each block, as ReadPowers has them
};

struct Codec {
  // ---- codes to numbers
  std::string_view unread = {};  // why no weight of the format is read; "": it is
  // Why this one is not, though others are. Null: all are.
  std::optional<std::string> (*why_unread)(const CodedWeight& weight) = nullptr;
  // How many rows must be decoded together: those that share a byte or a scale. Null: one.
  uint64_t (*read_step)(const CodedWeight& weight) = nullptr;
  Status (*decode)(const DecodeJob& job) = nullptr;

  // ---- numbers to codes
  std::string_view unwritten = {};  // why no weight is written in the format; "": it is
  // Rows that share a byte or a scale. Null: one.
  uint64_t (*write_step)(const Target& target) = nullptr;
  uint64_t code_bits = 8;  // of an element; plain ones have their own
  // Bytes of the scales of so many rows. Null: none, or one scale for the weight.
  size_t (*scale_bytes)(const Target& target, uint64_t rows, uint64_t columns) = nullptr;
  // The one scale of a weight, from the largest magnitude of all that share it. Null: there is none.
  float (*scalar)(const Target& target, float amax, const quantize::Numerics& numerics) = nullptr;
  // What ModelOpt's fake quantization rounds to while an amax is searched for; kPlain: it searches for none.
  FormatId searched_as = FormatId::kPlain;
  Status (*encode)(const EncodeJob& job) = nullptr;
};

// Total: every format has a codec, if only one that says why it does nothing.
const Codec& CodecOf(FormatId format);

// ---- decoding
// -----------------------------------------------------------------------------------------------------

// Why the weight can't be decoded ("with experts in one tensor"), or nothing where it can.
std::optional<std::string> WhyNotDecoded(const CodedWeight& weight);

// Rows [first, first + rows), of all experts in their order, to elements of `type`. `first` is a multiple of the step.
// Requires that nothing speaks against it (WhyNotDecoded). Errors: those of the reader; kQuantConversionUnsupported for
// parts that contradict each other.
Status DecodeRows(const CodedWeight& weight, const PartReader& reader, uint64_t first, uint64_t rows,
                  quantize::ElementType type, std::span<uint8_t> out);
uint64_t ReadStep(const CodedWeight& weight);

// The E8M0 codes of those rows, one for each block of `target` in the order of its scales. Requires CanCast, and rows
// that are whole steps of both.
Result<std::vector<uint8_t>> ReadPowers(const CodedWeight& weight, const Target& target, const PartReader& reader,
                                        uint64_t first, uint64_t rows);
// The largest power of two, blocks of zeros (code 0) aside; 0 where there is none, NaN where one is.
float LargestPower(std::span<const uint8_t> powers);
// How many of them E4M3 can express below a scale of scales that follows from the largest: so many blocks keep their
// numbers. Blocks of zeros count, as ModelOpt counts them.
uint64_t CountExact(std::span<const uint8_t> powers, float largest);

// ---- encoding
// -----------------------------------------------------------------------------------------------------

struct EncodedRows {
  std::vector<uint8_t> codes;
  std::vector<uint8_t> scales;  // the bytes of those that the format has several of
};

// `rows` begins with a multiple of WriteStep rows. `amax`: of the matrix's group, where it has one; where
// Encoding::cast the largest of its `powers` instead. Adds what is lost to `sums`. Errors: kQuantConversionUnsupported.
Status EncodeRows(const Target& target, const quantize::Matrix& rows, float amax, const quantize::Numerics& numerics,
                  EncodedRows* out, quantize::ErrorSums* sums, std::span<const uint8_t> powers = {});
uint64_t WriteStep(const Target& target);

// Bytes of the codes and of the scales of so many rows, `type` being that of the elements.
size_t CodeBytes(const Target& target, quantize::ElementType type, uint64_t rows, uint64_t columns);
size_t ScaleBytes(const Target& target, uint64_t rows, uint64_t columns);

// The one scale of a weight whose format has one: weight_scale of FP8, weight_scale_2 of NVFP4. `amax` as EncodeRows
// has it.
float ScalarScale(const Target& target, float amax, const quantize::Numerics& numerics);

// The search of an amax that an encoding asks for, other than of NVFP4's blocks: how ModelOpt quantizes while it
// searches, and by what the largest magnitude is multiplied. Nothing where there is no search.
struct AmaxSearch {
  FormatId format;
  std::vector<float> multipliers;
};
std::optional<AmaxSearch> AmaxSearchOf(const Encoding& encoding);

}  // namespace quantport
