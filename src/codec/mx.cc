// The OCP microscaling formats, and what has their codes: gpt-oss's blocks and DeepSeek's FP4 experts.
#include "quantize/mx.h"

#include <algorithm>
#include <cmath>

#include "codec/families.h"
#include "quantize/codes.h"

namespace quantport {
namespace {

using quantize::kMxBlock;

// ---- reading -------------------------------------------------------------------------------------------------------

bool IsPower(DType dtype) { return dtype == DType::kU8 || dtype == DType::kF8E8M0; }

std::optional<std::string> WhyUnread(const CodedWeight& weight) {
  if (weight.variant.inputs_first && weight.format != FormatId::kMxfp4Blocks) return " with blocks across rows";
  const DType scales = weight.Find(Role::kScale)->dtype;
  if (IsPower(scales) || (weight.format == FormatId::kFp4Block && IsScaleType(scales))) return std::nullopt;
  return " with scales of " + std::string(DTypeName(scales));
}

Status DecodeAs(FormatId format, const DecodeJob& job) {
  const uint64_t columns = job.Columns();
  auto codes = job.ReadRows(Role::kValues, format == FormatId::kMxfp8 ? columns : columns / 2);
  if (!codes) return codes.errors();
  auto scales = job.ReadRows(Role::kScale, columns / kMxBlock);
  if (!scales) return scales.errors();
  return quantize::DequantizeMx(format, *codes, job.rows, columns, *scales, job.out, job.type);
}

Status DecodeMxfp8(const DecodeJob& job) { return DecodeAs(FormatId::kMxfp8, job); }
Status DecodeMxfp4(const DecodeJob& job) { return DecodeAs(FormatId::kMxfp4, job); }

float Nibble(uint8_t byte, uint64_t index) { return quantize::kE2m1Values[byte >> (index % 2 * 4) & 15]; }

// gpt-oss: [experts, out, in / 32, 16], of which the rows here are the inputs: columns of the rows of bytes that all
// experts' outputs are. Where the rows are the outputs they are MXFP4's.
Status DecodeBlocks(const DecodeJob& job) {
  if (!job.weight.variant.inputs_first) return DecodeMxfp4(job);
  const uint64_t columns = job.Columns();
  const uint64_t inputs = job.RowsOfExpert();
  auto codes = job.reader.ReadColumns(job.Part(Role::kValues), columns, inputs / 2,
                                      job.expert * columns * inputs / 2 + job.first / 2, job.rows / 2);
  if (!codes) return codes.errors();
  auto scales =
      job.reader.ReadColumns(job.Part(Role::kScale), columns, inputs / kMxBlock,
                             job.expert * columns * inputs / kMxBlock + job.first / kMxBlock, job.rows / kMxBlock);
  if (!scales) return scales.errors();
  const quantize::Output out = {job.out.data(), job.type};
  for (uint64_t r = 0; r < job.rows; ++r) {
    for (uint64_t c = 0; c < columns; ++c) {
      const float scale = quantize::DecodeE8m0((*scales)[c * (job.rows / kMxBlock) + r / kMxBlock]);
      out.Store(r * columns + c, Nibble((*codes)[c * (job.rows / 2) + r / 2], r) * scale);
    }
  }
  return {};
}

uint64_t BlockRows(const CodedWeight& weight) { return weight.variant.inputs_first ? kMxBlock : 1; }

// Of the same experts: rows are inputs, and each column has a power of two for 32 of them.
Status AddPowersDown(const CodedWeight& weight, uint64_t block, const PartReader& reader, uint64_t first, uint64_t rows,
                     std::vector<uint8_t>* powers) {
  const uint64_t inputs = weight.shape[1];
  const uint64_t columns = weight.shape[2];
  for (const uint64_t end = first + rows; first < end; first += rows) {
    const uint64_t expert = first / inputs;
    rows = std::min(inputs - first % inputs, end - first);
    auto stored = reader.ReadColumns(*weight.Find(Role::kScale), columns, inputs / kMxBlock,
                                     (expert * columns * inputs + first % inputs) / kMxBlock, rows / kMxBlock);
    if (!stored) return stored.errors();
    for (uint64_t r = 0; r < rows; r += block) {
      for (uint64_t c = 0; c < columns; ++c) powers->push_back((*stored)[(c * rows + r) / kMxBlock]);
    }
  }
  return {};
}

// DeepSeek's FP4 experts: MXFP4's codes, whose scales may be numbers that are no powers of two.
Status DecodeFp4Block(const DecodeJob& job) {
  if (IsPower(job.Part(Role::kScale).dtype)) return DecodeMxfp4(job);
  const uint64_t columns = job.Columns();
  auto codes = job.ReadRows(Role::kValues, columns / 2);
  if (!codes) return codes.errors();
  auto scales = ReadBlockScales(job, 1, kMxBlock);
  if (!scales) return scales.errors();
  const quantize::Output out = {job.out.data(), job.type};
  for (uint64_t i = 0; i < job.rows * columns; ++i) out.Store(i, Nibble((*codes)[i / 2], i) * (*scales)[i / kMxBlock]);
  return {};
}

// ---- writing -------------------------------------------------------------------------------------------------------

size_t ScaleBytesOf(const Target&, uint64_t rows, uint64_t columns) { return rows * columns / kMxBlock; }

Status EncodeAs(FormatId format, const EncodeJob& job) {
  if (auto s = quantize::QuantizeMx(format, job.rows, job.scales, job.codes); !s) return s;
  return quantize::MeasureMx(format, job.rows, job.codes, job.scales, job.sums);
}

Status EncodeMxfp8(const EncodeJob& job) { return EncodeAs(FormatId::kMxfp8, job); }
Status EncodeMxfp4(const EncodeJob& job) { return EncodeAs(FormatId::kMxfp4, job); }

// ModelOpt gives zeros of either sign the code of a negative one. In gpt-oss's checkpoints both codes occur, and keep
// their sign, so that a hub's bytes come back.
Status EncodeBlocks(const EncodeJob& job) {
  if (auto s = EncodeMxfp4(job); !s) return s;
  constexpr uint8_t kNegativeZero = 8;
  const quantize::Row rows = job.rows.Flat();
  for (size_t i = 0; i < job.codes.size(); ++i) {
    for (const size_t half : {size_t{0}, size_t{1}}) {
      const uint8_t code = static_cast<uint8_t>(kNegativeZero << (4 * half));
      if ((job.codes[i] & (15 << (4 * half))) != code) continue;
      const float value = quantize::LoadElement(rows, 2 * i + half);
      if (value == 0 && !std::signbit(value)) job.codes[i] ^= code;
    }
  }
  return {};
}

Codec Reader(Status (*decode)(const DecodeJob&)) {
  Codec codec;
  codec.why_unread = WhyUnread;
  codec.decode = decode;
  codec.unwritten = "another tool's form of MXFP4";
  return codec;
}

Codec Make(Status (*decode)(const DecodeJob&), Status (*encode)(const EncodeJob&), uint64_t code_bits) {
  Codec codec = Reader(decode);
  codec.unwritten = {};
  codec.code_bits = code_bits;
  codec.scale_bytes = ScaleBytesOf;
  codec.encode = encode;
  return codec;
}

Codec MakeBlocks() {
  Codec codec = Make(DecodeBlocks, EncodeBlocks, 4);
  codec.read_step = BlockRows;
  return codec;
}

}  // namespace

Result<std::vector<uint8_t>> ReadPowers(const CodedWeight& weight, const Target& target, const PartReader& reader,
                                        uint64_t first, uint64_t rows) {
  const uint64_t block = target.encoding.block;
  std::vector<uint8_t> powers;
  if (weight.variant.inputs_first) {
    powers.reserve(rows * weight.shape.back() / block);
    if (auto s = AddPowersDown(weight, block, reader, first, rows, &powers); !s) return s.errors();
    return powers;
  }
  const uint64_t stored = weight.shape.back() / kMxBlock;
  auto read = reader.Read(*weight.Find(Role::kScale), first * stored, rows * stored);
  if (!read || block == kMxBlock) return read;
  powers.reserve(2 * read->size());
  for (const uint8_t power : *read) powers.insert(powers.end(), kMxBlock / block, power);
  return powers;
}

float LargestPower(std::span<const uint8_t> powers) {
  const uint8_t largest = powers.empty() ? uint8_t{0} : *std::max_element(powers.begin(), powers.end());
  return largest == 0 ? 0.0f : quantize::DecodeE8m0(largest);
}

uint64_t CountExact(std::span<const uint8_t> powers, float largest) {
  constexpr float kSpan = 0x1p17f;  // from 2^-9 to 2^8
  return static_cast<uint64_t>(std::count_if(powers.begin(), powers.end(), [&](uint8_t power) {
    return power == 0 || quantize::DecodeE8m0(power) * kSpan >= largest;
  }));
}

const Codec kMxfp8Codec = Make(DecodeMxfp8, EncodeMxfp8, 8);
const Codec kMxfp4Codec = Make(DecodeMxfp4, EncodeMxfp4, 4);
const Codec kMxfp4ReadCodec = Reader(DecodeMxfp4);
const Codec kMxfp4BlocksCodec = MakeBlocks();
const Codec kFp4BlockCodec = Reader(DecodeFp4Block);

}  // namespace quantport
