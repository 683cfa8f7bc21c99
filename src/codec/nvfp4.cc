// NVFP4: ModelOpt's, and compressed-tensors', whose scale of scales is a reciprocal.
#include "quantize/nvfp4.h"

#include <algorithm>

#include "codec/families.h"
#include "quantize/codes.h"
#include "quantize/fp8.h"
#include "quantize/nvfp4_search.h"

namespace quantport {
namespace {

// ---- reading -------------------------------------------------------------------------------------------------------

// compressed-tensors divides by its global scale, ModelOpt multiplies by weight_scale_2.
Result<float> GlobalScale(const DecodeJob& job) {
  auto scale = job.ReadScalar(Role::kGlobalScale);
  if (scale && job.weight.format == FormatId::kNvfp4Pack) *scale = 1 / *scale;
  return scale;
}

// Batched experts, [in / 2, out] a weight: two inputs share a byte, and each column of a block of inputs is a block.
Status DecodeDown(const DecodeJob& job, float global_scale) {
  const uint64_t columns = job.Columns();
  const uint64_t block = job.weight.variant.group;
  const uint64_t row = job.FirstRow();
  auto codes = job.reader.Read(job.Part(Role::kValues), row / 2 * columns, job.rows / 2 * columns);
  if (!codes) return codes.errors();
  auto scales = job.reader.Read(job.Part(Role::kScale), row / block * columns, job.rows / block * columns);
  if (!scales) return scales.errors();
  const quantize::Output out = {job.out.data(), job.type};
  for (uint64_t r = 0; r < job.rows; ++r) {
    for (uint64_t c = 0; c < columns; ++c) {
      const float scale = quantize::DecodeE4m3((*scales)[r / block * columns + c]) * global_scale;
      const uint8_t code = (*codes)[r / 2 * columns + c] >> (r % 2 * 4) & 15;
      out.Store(r * columns + c, quantize::kE2m1Values[code] * scale);
    }
  }
  return {};
}

Status Decode(const DecodeJob& job) {
  const auto global_scale = GlobalScale(job);
  if (!global_scale) return global_scale.errors();
  if (job.weight.variant.inputs_first) return DecodeDown(job, *global_scale);
  const uint64_t columns = job.Columns();
  const uint64_t block = job.weight.variant.group;
  auto codes = job.ReadRows(Role::kValues, columns / 2);
  if (!codes) return codes.errors();
  auto scales = job.ReadRows(Role::kScale, columns / block);
  if (!scales) return scales.errors();
  return quantize::DequantizeNvfp4(*codes, job.rows, columns, block, *scales, *global_scale, job.out, job.type);
}

uint64_t ReadStepOf(const CodedWeight& weight) { return weight.variant.inputs_first ? weight.variant.group : 1; }

// ---- writing -------------------------------------------------------------------------------------------------------

float Normalization(const Encoding& encoding) { return encoding.four_over_six ? 256.0f : quantize::kE4m3Max; }

// E4M3 holds powers of two from 2^-9 to 2^8 as they are, and the largest of a cast becomes the latter.
constexpr float kLargestScale = 256.0f;

float Scalar(const Target& target, float amax, const quantize::Numerics& numerics) {
  // Without any, as ModelOpt has it: that of a largest power of one.
  if (target.encoding.cast) return (amax == 0 ? 1.0f : amax) / kLargestScale;
  return quantize::Nvfp4GlobalScale(amax, Normalization(target.encoding), numerics);
}

// W4A8_NVFP4_FP8 divides by 448 alone, as FP8 does.
float Fp8Scalar(const Target&, float amax, const quantize::Numerics& numerics) {
  return quantize::Fp8TensorScale(amax, numerics);
}

size_t ScaleBytesOf(const Target& target, uint64_t rows, uint64_t columns) {
  return rows * columns / target.encoding.block;
}

// Block scales that ModelOpt's static quantizer would have stored.
Status StaticScales(const EncodeJob& job) {
  const Encoding& encoding = job.target.encoding;
  std::vector<float> amax(job.rows.rows * (job.rows.columns / encoding.block));
  Status status;
  switch (encoding.search) {
    case ScaleSearch::kNone:
      status = quantize::BlockAmax(job.rows, {1, encoding.block}, amax);
      break;
    case ScaleSearch::kSweep:
      status = quantize::SweepNvfp4Amax(job.rows, encoding.block, job.amax, amax);
      break;
    case ScaleSearch::kMultipliers:
      status = quantize::SearchNvfp4Amax(
          job.rows, encoding.block, job.amax, Normalization(encoding),
          quantize::SearchMultipliers(encoding.search_start, encoding.search_stop, encoding.search_step), amax);
      break;
  }
  if (!status) return status;
  quantize::StaticNvfp4Scales(amax, job.amax, Normalization(encoding), job.numerics.arithmetic, job.scales);
  return {};
}

void CastScales(const EncodeJob& job, float scale_2) {
  for (size_t i = 0; i < job.scales.size(); ++i)
    job.scales[i] =
        quantize::EncodeE4m3(std::clamp(quantize::DecodeE8m0(job.powers[i]) / scale_2, 0x1p-9f, quantize::kE4m3Max));
}

Status Encode(const EncodeJob& job) {
  const size_t block = job.target.encoding.block;
  const float scale_2 = ScalarScale(job.target, job.amax, job.numerics);
  Status status;
  if (job.target.encoding.cast) {
    CastScales(job, scale_2);
    status = quantize::QuantizeNvfp4WithScales(job.rows, scale_2, block, job.scales, job.codes);
  } else if (job.target.encoding.static_blocks) {
    status = StaticScales(job);
    if (status) status = quantize::QuantizeNvfp4WithScales(job.rows, scale_2, block, job.scales, job.codes);
  } else {
    status = quantize::QuantizeNvfp4(job.rows, scale_2, block, job.numerics, job.scales, job.codes);
  }
  if (!status) return status;
  return quantize::MeasureNvfp4(job.rows, job.codes, block, job.scales, scale_2, job.sums);
}

Codec Reader() {
  Codec codec;
  codec.read_step = ReadStepOf;
  codec.decode = Decode;
  codec.unwritten = "its other parts need activations, or are another tool's";
  return codec;
}

Codec Make(float (*scalar)(const Target&, float, const quantize::Numerics&)) {
  Codec codec = Reader();
  codec.unwritten = {};
  codec.code_bits = 4;
  codec.scale_bytes = ScaleBytesOf;
  codec.scalar = scalar;
  // ModelOpt refuses to search for dynamic blocks, so that what is searched for outside of static ones is FP8's.
  codec.searched_as = FormatId::kFp8PerTensor;
  codec.encode = Encode;
  return codec;
}

}  // namespace

const Codec kNvfp4Codec = Make(Scalar);
const Codec kW4A8Nvfp4Codec = Make(Fp8Scalar);
const Codec kNvfp4ReadCodec = Reader();

}  // namespace quantport
