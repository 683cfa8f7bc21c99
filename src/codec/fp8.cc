// FP8 of every granularity: ModelOpt's, compressed-tensors', Quark's and fine-grained FP8.
#include "quantize/fp8.h"

#include "base/checked.h"
#include "codec/families.h"
#include "quantize/codes.h"

namespace quantport {
namespace {

using quantize::BlockShape;

// ---- reading -------------------------------------------------------------------------------------------------------

std::optional<std::string> WhyUnread(const CodedWeight& weight) {
  const Variant& variant = weight.variant;
  const uint64_t rows = weight.shape[weight.shape.size() - 2];
  if (!IsScaleType(weight.Find(Role::kScale)->dtype))
    return " with a scale of " + std::string(DTypeName(weight.Find(Role::kScale)->dtype));
  if (variant.granularity == Granularity::kHalves || variant.granularity == Granularity::kColumns)
    return " with scales for parts of an expert";
  // Experts are read one by one, and their tiles must be too.
  if (weight.shape.size() == 3 && variant.granularity == Granularity::kTiles &&
      (variant.half_tiles || rows % variant.tile[0] != 0))
    return " with tiles that do not fit an expert's rows";
  return std::nullopt;
}

uint64_t ReadTile(const CodedWeight& weight) {
  return weight.variant.granularity == Granularity::kTiles ? weight.variant.tile[0] : 1;
}

BlockShape BlockOf(const Variant& variant, uint64_t columns) {
  switch (variant.granularity) {
    case Granularity::kTiles:
      return {variant.tile[0], variant.tile[1]};
    case Granularity::kGroups:
      return {1, variant.group};
    default:
      return {1, columns};
  }
}

Status Decode(const DecodeJob& job) {
  const uint64_t columns = job.Columns();
  auto codes = job.ReadRows(Role::kValues, columns);
  if (!codes) return codes.errors();
  BlockShape block = BlockOf(job.weight.variant, columns);
  std::vector<float> scales;
  if (job.weight.variant.granularity == Granularity::kTensor) {
    block = {job.rows, columns};
    auto scale = job.ReadScalar(Role::kScale);
    if (!scale) return scale.errors();
    scales.push_back(*scale);
  } else {
    auto read = ReadBlockScales(job, block.rows, block.columns);
    if (!read) return read.errors();
    scales = std::move(*read);
  }
  // weight_scale_inv is multiplied as it is; ModelOpt rounds a scale to the output's type first.
  const auto rounding =
      job.weight.variant.scale_inv ? quantize::ScaleRounding::kKept : quantize::ScaleRounding::kToOutput;
  return quantize::DequantizeFp8(*codes, job.rows, columns, block, scales, rounding, job.out, job.type);
}

// ---- writing -------------------------------------------------------------------------------------------------------

bool HasOneScale(const Target& target) { return target.variant.granularity == Granularity::kTensor; }

uint64_t WriteTile(const Target& target) {
  return target.variant.granularity == Granularity::kTiles ? target.variant.tile[0] : 1;
}

size_t ScaleBytesOf(const Target& target, uint64_t rows, uint64_t columns) {
  if (HasOneScale(target)) return 0;
  const BlockShape block = BlockOf(target.variant, columns);
  return CeilDiv(rows, block.rows) * CeilDiv(columns, std::max<size_t>(block.columns, 1)) * sizeof(float);
}

float Scalar(const Target&, float amax, const quantize::Numerics& numerics) {
  return quantize::Fp8TensorScale(amax, numerics);
}

Status EncodeTensor(const EncodeJob& job) {
  const quantize::Matrix& rows = job.rows;
  const float scale = Scalar(job.target, job.amax, job.numerics);
  const BlockShape whole = {rows.rows, rows.columns};
  // A scale without dimensions does not promote in torch: the quotient is rounded to the weight's type before it
  // becomes a code. Two scales have a dimension when the division is made, and keep it in F32: that of a tensor with
  // three dimensions (batched experts), which ModelOpt shapes [1], and that of a single tile, though it is stored as
  // [].
  const bool promotes = job.target.shape.size() == 3 || job.target.encoding.format == FormatId::kFp8Block;
  const Status status = promotes ? quantize::QuantizeFp8(rows, whole, {&scale, 1}, job.codes)
                                 : quantize::QuantizeFp8Tensor(rows, scale, job.numerics.arithmetic, job.codes);
  if (!status) return status;
  return quantize::MeasureFp8(rows, job.codes, whole, {&scale, 1}, job.sums);
}

Status Encode(const EncodeJob& job) {
  if (HasOneScale(job.target)) return EncodeTensor(job);
  const BlockShape block = BlockOf(job.target.variant, job.rows.columns);
  auto scales = BlockScales(job, block, quantize::kE4m3Max, job.rows.type);
  if (!scales) return scales.errors();
  if (auto s = quantize::QuantizeFp8(job.rows, block, *scales, job.codes); !s) return s;
  StoreScales(*scales, job);
  return quantize::MeasureFp8(job.rows, job.codes, block, *scales, job.sums);
}

Codec Reader() {
  Codec codec;
  codec.why_unread = WhyUnread;
  codec.read_step = ReadTile;
  codec.decode = Decode;
  codec.unwritten = "ModelOpt exports no FP8 of groups";
  return codec;
}

Codec Make() {
  Codec codec = Reader();
  codec.unwritten = {};
  codec.write_step = WriteTile;
  codec.scale_bytes = ScaleBytesOf;
  codec.scalar = Scalar;
  codec.searched_as = FormatId::kFp8PerTensor;
  codec.encode = Encode;
  return codec;
}

}  // namespace

const Codec kFp8Codec = Make();
const Codec kFp8ReadCodec = Reader();

}  // namespace quantport
