// ModelOpt's INT8, a scale a row, and INT4, a scale a group and two rows in a byte.
#include "base/checked.h"
#include "codec/families.h"
#include "quantize/integer.h"

namespace quantport {
namespace {

constexpr auto kRounding = quantize::ScaleRounding::kToOutput;

std::optional<std::string> WhyUnread(const CodedWeight& weight) {
  const DType scales = weight.Find(Role::kScale)->dtype;
  return IsScaleType(scales) ? std::nullopt : std::optional(" with scales of " + std::string(DTypeName(scales)));
}

// ---- INT8 ----------------------------------------------------------------------------------------------------------

Status DecodeInt8(const DecodeJob& job) {
  const uint64_t columns = job.Columns();
  auto codes = job.ReadRows(Role::kValues, columns);
  if (!codes) return codes.errors();
  auto scales = ReadBlockScales(job, 1, columns);
  if (!scales) return scales.errors();
  return quantize::DequantizeInt8(*codes, job.rows, columns, columns, *scales, kRounding, job.out, job.type);
}

size_t RowScaleBytes(const Target&, uint64_t rows, uint64_t) { return rows * sizeof(float); }

Status EncodeInt8(const EncodeJob& job) {
  const size_t columns = job.rows.columns;
  auto scales = BlockScales(job, {1, columns}, 127, job.rows.type);
  if (!scales) return scales.errors();
  if (auto s = quantize::QuantizeInt8(job.rows, columns, *scales, job.codes); !s) return s;
  StoreScales(*scales, job);
  return quantize::MeasureInt8(job.rows, job.codes, columns, *scales, job.sums);
}

Codec MakeInt8() {
  Codec codec;
  codec.why_unread = WhyUnread;
  codec.decode = DecodeInt8;
  codec.scale_bytes = RowScaleBytes;
  codec.searched_as = FormatId::kInt8;
  codec.encode = EncodeInt8;
  return codec;
}

// ---- INT4 ----------------------------------------------------------------------------------------------------------

uint64_t GroupOf(const CodedWeight& weight) {
  return weight.variant.granularity == Granularity::kGroups ? weight.variant.group : weight.shape.back();
}

uint64_t RowPair(const CodedWeight&) { return 2; }

Status DecodeInt4(const DecodeJob& job) {
  const uint64_t columns = job.Columns();
  const uint64_t group = GroupOf(job.weight);
  auto codes = job.reader.Read(job.Part(Role::kValues), job.FirstRow() / 2 * columns, job.rows / 2 * columns);
  if (!codes) return codes.errors();
  auto scales = ReadBlockScales(job, 1, group);
  if (!scales) return scales.errors();
  return quantize::DequantizeInt4(*codes, job.rows, columns, group, *scales, kRounding, job.out, job.type);
}

uint64_t WrittenPair(const Target&) { return 2; }

size_t GroupScaleBytes(const Target& target, uint64_t rows, uint64_t columns) {
  return rows * CeilDiv(columns, target.encoding.block) * sizeof(float);
}

// ModelOpt keeps the amax of its blocks in F32, whatever the weight is.
Status EncodeInt4(const EncodeJob& job) {
  const size_t group = job.target.encoding.block;
  auto scales = BlockScales(job, {1, group}, 7, quantize::ElementType::kF32);
  if (!scales) return scales.errors();
  if (auto s = quantize::QuantizeInt4(job.rows, group, *scales, job.codes); !s) return s;
  StoreScales(*scales, job);
  return quantize::MeasureInt4(job.rows, job.codes, group, *scales, job.sums);
}

Codec MakeInt4() {
  Codec codec;
  codec.why_unread = WhyUnread;
  codec.read_step = RowPair;
  codec.decode = DecodeInt4;
  codec.write_step = WrittenPair;
  codec.code_bits = 4;
  codec.scale_bytes = GroupScaleBytes;
  codec.searched_as = FormatId::kInt4;
  codec.encode = EncodeInt4;
  return codec;
}

}  // namespace

const Codec kInt8Codec = MakeInt8();
const Codec kInt4Codec = MakeInt4();

}  // namespace quantport
