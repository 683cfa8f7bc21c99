// Every format in every direction: it works, or is refused with its reason. A new format is missing here until it has
// both.
#include "codec/codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "format/leaves.h"
#include "format/match.h"
#include "quantize/codes.h"

namespace quantport {
namespace {

using quantize::ElementType;
using ::testing::HasSubstr;

constexpr int kFormats = static_cast<int>(FormatId::kUnrecognized) + 1;

class MemoryParts : public PartReader {
 public:
  Result<std::vector<uint8_t>> Read(const CodedPart& part, uint64_t begin, uint64_t count) const override {
    return ReadColumns(part, 1, count, begin, count);
  }
  Result<std::vector<uint8_t>> ReadColumns(const CodedPart& part, uint64_t rows, uint64_t row_bytes, uint64_t begin,
                                           uint64_t count) const override {
    std::vector<uint8_t> out;
    const std::vector<uint8_t>& all = bytes.at(part.tensor);
    for (uint64_t row = 0; row < rows; ++row) {
      const uint64_t from = begin + row * row_bytes;
      if (from + count > all.size()) return Error{ErrorKind::kQuantConversionUnsupported, "beyond its end", {}, {}, {}};
      out.insert(out.end(), all.begin() + static_cast<std::ptrdiff_t>(from),
                 all.begin() + static_cast<std::ptrdiff_t>(from + count));
    }
    return out;
  }

  std::vector<std::vector<uint8_t>> bytes;
};

// A weight of every format that is stored: the smallest in which nothing is whole by accident.
struct Sample {
  Shape shape;
  Variant variant;
  std::vector<Role> optional = {};  // parts that need not be there, and are
};

Variant Grouped(uint64_t group, uint64_t bits = 0) {
  Variant variant;
  variant.granularity = Granularity::kGroups;
  variant.group = group;
  variant.bits = bits;
  return variant;
}

Variant By(Granularity granularity, uint64_t bits = 0) {
  Variant variant;
  variant.granularity = granularity;
  variant.bits = bits;
  variant.tile = {128, 128};
  return variant;
}

Sample SampleOf(FormatId format) {
  switch (format) {
    case FormatId::kPlain:
      return {{6, 64}, {}};
    case FormatId::kNvfp4:
    case FormatId::kNvfp4Awq:
      return {{6, 64}, Grouped(16), {Role::kInputScale}};
    case FormatId::kNvfp4WeightOnly:
    case FormatId::kNvfp4Pack:
      return {{6, 64}, Grouped(16)};
    case FormatId::kNvfp4Svd:
      return {{6, 64}, Grouped(16), {Role::kLowRankIn, Role::kLowRankOut}};
    case FormatId::kW4A8Nvfp4Fp8:
      return {{6, 64}, Grouped(32), {Role::kInputScale}};
    case FormatId::kFp8PerTensor:
      return {{6, 64}, By(Granularity::kTensor)};
    case FormatId::kFp8PerChannel:
      return {{6, 64}, By(Granularity::kRows)};
    case FormatId::kFp8Block:
      return {{200, 160}, By(Granularity::kTiles)};
    case FormatId::kFp8Group:
      return {{6, 64}, Grouped(32)};
    case FormatId::kMxfp8:
    case FormatId::kMxfp6:
    case FormatId::kMxfp4:
    case FormatId::kMxfp4Pack:
      return {{6, 64}, Grouped(32)};
    case FormatId::kW4A8Mxfp4Fp8:
      return {{6, 64}, Grouped(32), {Role::kInputScale}};
    case FormatId::kMxfp4Blocks: {
      Variant variant = Grouped(32);
      variant.inputs_first = true;
      return {{2, 64, 96}, variant};
    }
    case FormatId::kFp4Block: {
      Variant variant = Grouped(32);
      variant.scale_inv = true;
      return {{6, 64}, variant};
    }
    case FormatId::kInt4:
    case FormatId::kW4A8Awq:
      return {{6, 256}, Grouped(128, 4)};
    case FormatId::kInt8:
      return {{6, 64}, By(Granularity::kRows, 8)};
    case FormatId::kInt8SmoothQuant:
      return {{6, 64}, By(Granularity::kRows, 8), {Role::kInputScale}};
    case FormatId::kIntQuantized:
      return {{6, 64}, Grouped(16, 8), {Role::kZeroPoint}};
    case FormatId::kPackQuantized:
      return {{6, 64}, Grouped(16, 4), {Role::kZeroPoint, Role::kStatedShape}};
    case FormatId::kGptq:
      return {{16, 64}, Grouped(32, 4), {Role::kGroupIndex}};
    case FormatId::kAwq:
      return {{16, 64}, Grouped(32, 4)};
    case FormatId::kBitsAndBytes4Bit:
      return {{6, 64}, Grouped(64, 4)};
    case FormatId::kBitsAndBytes8Bit:
      return {{6, 64}, By(Granularity::kRows, 8)};
    case FormatId::kQuarkInt4:
      return {{64, 64}, Grouped(32, 4)};
    case FormatId::kUnrecognized:
      break;
  }
  return {};
}

bool IsIn(const Part& part, const Sample& sample) {
  return part.required || std::find(sample.optional.begin(), sample.optional.end(), part.role) != sample.optional.end();
}

// Bytes that are numbers of their type: codes at random, scales around one, groups in their order.
std::vector<uint8_t> Filled(const Part& part, const Shape& shape, const Sample& sample, std::mt19937* random) {
  uint64_t elements = 1;
  for (const uint64_t size : shape) elements *= size;
  const DType dtype = part.dtypes.written();
  std::vector<uint8_t> bytes(elements * static_cast<uint64_t>(DTypeBits(dtype)) / 8);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>((*random)());
  for (uint64_t i = 0; i < elements; ++i) {
    const float number = 0.5f + static_cast<float>((*random)() % 64) / 32;
    if (part.role == Role::kGroupIndex) {
      const auto group = static_cast<uint32_t>(i / sample.variant.group);
      std::memcpy(&bytes[4 * i], &group, 4);
    } else if (dtype == DType::kF32) {
      std::memcpy(&bytes[4 * i], &number, 4);
    } else if (dtype == DType::kF16 || dtype == DType::kBF16) {
      const uint16_t half = dtype == DType::kF16 ? quantize::ToF16(number) : quantize::ToBf16(number);
      std::memcpy(&bytes[2 * i], &half, 2);
    } else if (part.role == Role::kScale) {
      bytes[i] = dtype == DType::kF8E4M3 ? quantize::EncodeE4m3(number) : static_cast<uint8_t>(120 + (*random)() % 12);
    } else if (dtype == DType::kF8E4M3 && (bytes[i] & 0x7F) == 0x7F) {
      bytes[i] = 0;  // NaN equals nothing
    }
  }
  return bytes;
}

// The sample of a format with its tensors.
CodedWeight Stored(FormatId format, MemoryParts* parts) {
  const Sample sample = SampleOf(format);
  CodedWeight weight{format, sample.shape, sample.variant, {}};
  std::mt19937 random(static_cast<uint32_t>(format));
  for (const Part& part : Parts(format, sample.shape, sample.variant)) {
    if (!IsIn(part, sample)) continue;
    const Shape& shape = part.forms[part.written].shape;
    parts->bytes.push_back(Filled(part, shape, sample, &random));
    weight.parts.push_back({part.role, static_cast<uint32_t>(weight.parts.size()), part.dtypes.written(), shape,
                            parts->bytes.back().size()});
  }
  return weight;
}

uint64_t RowsOf(const Shape& shape) {
  uint64_t rows = 1;
  for (size_t dim = 0; dim + 1 < shape.size(); ++dim) rows *= shape[dim];
  return rows;
}

std::vector<float> Decoded(const CodedWeight& weight, const MemoryParts& parts, uint64_t at_once) {
  std::vector<float> numbers;
  const uint64_t rows = RowsOf(weight.shape), columns = weight.shape.back();
  for (uint64_t first = 0; first < rows; first += at_once) {
    const uint64_t count = std::min(at_once, rows - first);
    std::vector<float> some(count * columns);
    const std::span<uint8_t> bytes(reinterpret_cast<uint8_t*>(some.data()), some.size() * sizeof(float));
    const Status status = DecodeRows(weight, parts, first, count, ElementType::kF32, bytes);
    EXPECT_TRUE(status.ok()) << FormatName(weight.format) << ": " << status.errors()[0].ToString();
    if (!status.ok()) return {};
    numbers.insert(numbers.end(), some.begin(), some.end());
  }
  return numbers;
}

class CodecTest : public ::testing::TestWithParam<int> {
 protected:
  FormatId format() const { return static_cast<FormatId>(GetParam()); }
};

TEST_P(CodecTest, EveryDirectionWorksOrSaysWhyNot) {
  const Codec& codec = CodecOf(format());
  EXPECT_EQ(codec.unread.empty(), codec.decode != nullptr);
  EXPECT_EQ(codec.unwritten.empty(), codec.encode != nullptr);
  if (codec.decode == nullptr) {
    EXPECT_THAT(WhyNotDecoded({format(), {6, 64}, {}, {}}).value_or(""), HasSubstr(std::string(codec.unread)));
  }
}

// Planning and codecs say the same of what is written.
TEST_P(CodecTest, WhatIsWrittenHasShapesAndACodec) {
  const Sample sample = SampleOf(format());
  if (format() == FormatId::kUnrecognized) {
    EXPECT_FALSE(WrittenVariant({format()}, {6, 64}).ok());
    return;
  }
  Encoding encoding;
  encoding.format = format();
  encoding.block = sample.variant.granularity == Granularity::kTiles ? sample.variant.tile[0] : sample.variant.group;
  const auto variant = WrittenVariant(encoding, sample.shape);
  EXPECT_EQ(variant.ok(), CodecOf(format()).encode != nullptr);
  if (!variant) {
    EXPECT_THAT(variant.errors()[0].message, HasSubstr("can't be written"));
  }
}

TEST_P(CodecTest, ItsOwnTensorsAreRecognizedAsIt) {
  // bitsandbytes states its shape in the bytes of a tensor, which headers do not have.
  if (format() == FormatId::kUnrecognized || format() == FormatId::kBitsAndBytes4Bit) return;
  const Sample sample = SampleOf(format());
  const std::vector<Part> parts = Parts(format(), sample.shape, sample.variant);
  ASSERT_FALSE(parts.empty());
  std::vector<Shape> shapes;
  shapes.reserve(parts.size());
  std::vector<StoredLeaf> leaves;
  std::vector<Role> roles;
  for (const Part& part : parts) {
    if (!IsIn(part, sample)) continue;
    Shape shape = part.forms[part.written].shape;
    std::replace(shape.begin(), shape.end(), kAnySize, uint64_t{4});
    shapes.push_back(std::move(shape));
    // Some parts go by either of two names.
    const bool seen = std::find(roles.begin(), roles.end(), part.role) != roles.end();
    roles.push_back(part.role);
    if (!seen) leaves.push_back({part.leaf, part.dtypes.written(), shapes.back(), 0});
  }
  RecognizeOptions options;
  options.bits = sample.variant.bits;
  options.group_size = sample.variant.group;
  PartsMemo memo;
  const Match match = MatchFormat({"m.weight", leaves, options}, &memo);
  EXPECT_EQ(FormatName(match.format), FormatName(format())) << match.misfit.text;
  EXPECT_EQ(match.shape, sample.shape);
}

TEST_P(CodecTest, StretchesOfRowsAreThoseOfTheWhole) {
  if (CodecOf(format()).decode == nullptr) return;
  MemoryParts parts;
  const CodedWeight weight = Stored(format(), &parts);
  ASSERT_EQ(WhyNotDecoded(weight), std::nullopt);
  const std::vector<float> whole = Decoded(weight, parts, RowsOf(weight.shape));
  EXPECT_EQ(Decoded(weight, parts, ReadStep(weight)), whole);
  // Numbers of codes at random: not one for all.
  EXPECT_GT(std::count_if(whole.begin(), whole.end(), [&](float number) { return number != whole[0]; }), 10);
}

TEST_P(CodecTest, APartThatIsTooShortIsAnError) {
  if (CodecOf(format()).decode == nullptr) return;
  MemoryParts parts;
  const CodedWeight weight = Stored(format(), &parts);
  for (const CodedPart& part : weight.parts) {
    if (part.role == Role::kInputScale || part.role == Role::kStatedShape) continue;
    MemoryParts shorter = parts;
    shorter.bytes[part.tensor].pop_back();
    std::vector<uint8_t> out(RowsOf(weight.shape) * weight.shape.back() * 4);
    EXPECT_FALSE(DecodeRows(weight, shorter, 0, RowsOf(weight.shape), ElementType::kF32, out).ok()) << part.tensor;
  }
}

// What encoding says that is lost is what decoding finds missing.
void ExpectRoundTrip(const Encoding& encoding, const Shape& shape) {
  const auto variant = WrittenVariant(encoding, shape);
  ASSERT_TRUE(variant.ok()) << variant.errors()[0].ToString();
  const Target target{encoding, shape, *variant};
  const uint64_t rows = RowsOf(shape), columns = shape.back();
  std::mt19937 random(7);
  std::vector<float> numbers(rows * columns);
  float amax = 0;
  for (float& number : numbers) {
    number = quantize::RoundTo(ElementType::kBF16, std::normal_distribution<float>()(random));
    amax = std::max(amax, std::fabs(number));
  }
  const std::vector<uint8_t> bytes = [&] {
    std::vector<uint8_t> all(numbers.size() * 4);
    std::memcpy(all.data(), numbers.data(), all.size());
    return all;
  }();
  EncodedRows encoded;
  quantize::ErrorSums sums;
  const auto status =
      EncodeRows(target, {bytes, ElementType::kF32, rows, columns}, amax, quantize::Numerics(), &encoded, &sums);
  ASSERT_TRUE(status.ok()) << status.errors()[0].ToString();

  MemoryParts parts;
  CodedWeight weight{encoding.format, shape, *variant, {}};
  for (const Part& part : Parts(encoding.format, shape, *variant)) {
    if (!part.required || part.role == Role::kInputScale) continue;
    const Shape& stored = part.forms[part.written].shape;
    std::vector<uint8_t> own = part.role == Role::kValues ? encoded.codes : encoded.scales;
    if (part.role == Role::kGlobalScale || (part.role == Role::kScale && stored.empty())) {
      const float scale = ScalarScale(target, amax, quantize::Numerics());
      own.resize(4);
      std::memcpy(own.data(), &scale, 4);
    }
    weight.parts.push_back(
        {part.role, static_cast<uint32_t>(parts.bytes.size()), part.dtypes.written(), stored, own.size()});
    // The bytes are as many as the shape that is planned for them.
    EXPECT_EQ(own.size(), weight.parts.back().Elements() * static_cast<uint64_t>(DTypeBits(part.dtypes.written())) / 8);
    parts.bytes.push_back(std::move(own));
  }
  ASSERT_EQ(WhyNotDecoded(weight), std::nullopt);
  const std::vector<float> decoded = Decoded(weight, parts, rows);
  ASSERT_EQ(decoded.size(), numbers.size());
  double squared = 0;
  for (size_t i = 0; i < numbers.size(); ++i) {
    EXPECT_NEAR(decoded[i], numbers[i], amax * 0.34);
    squared += (double{decoded[i]} - numbers[i]) * (double{decoded[i]} - numbers[i]);
  }
  EXPECT_EQ(sums.elements, numbers.size());
  EXPECT_GT(squared, 0);
  EXPECT_NEAR(squared, sums.squared_error, squared * 1e-9);
}

TEST_P(CodecTest, WhatIsEncodedIsDecoded) {
  if (format() == FormatId::kPlain || CodecOf(format()).encode == nullptr) return;
  const Sample sample = SampleOf(format());
  Encoding encoding;
  encoding.format = format();
  encoding.block = sample.variant.granularity == Granularity::kTiles ? sample.variant.tile[0] : sample.variant.group;
  ExpectRoundTrip(encoding, sample.shape);
  if (format() == FormatId::kFp8Block) ExpectRoundTrip(encoding, {100, 90});  // one tile, a scale without dimensions
  if (WrittenVariant(encoding, {2, 64, 96}).ok()) ExpectRoundTrip(encoding, {2, 64, 96});
}

INSTANTIATE_TEST_SUITE_P(All, CodecTest, ::testing::Range(0, kFormats), [](const auto& test) {
  std::string name(FormatName(static_cast<FormatId>(test.param)));
  std::replace_if(
      name.begin(), name.end(), [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; }, '_');
  return name;
});

// ---- one by one ----------------------------------------------------------------------------------------------------

TEST(CodecsTest, DeepSeeksFp4ExpertsAreTheirCodesTimesTheirScales) {
  for (const DType dtype : {DType::kF8E8M0, DType::kU8, DType::kF32}) {
    MemoryParts parts;
    CodedWeight weight = Stored(FormatId::kFp4Block, &parts);
    weight.parts[1].dtype = dtype;
    std::vector<float> scales;
    for (uint8_t byte = 120; byte < 132; ++byte)
      scales.push_back(dtype == DType::kF32 ? static_cast<float>(byte) / 100 : std::ldexp(1.0f, byte - 127));
    parts.bytes[1].resize(dtype == DType::kF32 ? 48 : 12);
    for (size_t i = 0; i < 12; ++i) {
      parts.bytes[1][i] = static_cast<uint8_t>(120 + i);
      if (dtype == DType::kF32) std::memcpy(parts.bytes[1].data(), scales.data(), 48);
    }
    const std::vector<float> decoded = Decoded(weight, parts, 6);
    for (size_t i = 0; i < decoded.size(); ++i) {
      const uint8_t code = parts.bytes[0][i / 2] >> (i % 2 * 4) & 15;
      EXPECT_EQ(decoded[i], quantize::kE2m1Values[code] * scales[i / 32]) << DTypeName(dtype) << " " << i;
    }
  }
}

TEST(CodecsTest, OneScaleOfInt8IsThatOfEveryRow) {
  MemoryParts parts;
  parts.bytes = {std::vector<uint8_t>(6 * 4, 3), {0, 0, 0, 0x40}};
  const CodedWeight weight{FormatId::kIntQuantized,
                           {6, 4},
                           By(Granularity::kTensor, 8),
                           {{Role::kValues, 0, DType::kI8, {6, 4}, 24}, {Role::kScale, 1, DType::kF32, {1}, 4}}};
  EXPECT_EQ(Decoded(weight, parts, 1), std::vector<float>(24, 6.0f));
}

TEST(CodecsTest, EachExpertHasItsOwnScale) {
  MemoryParts parts;
  parts.bytes = {std::vector<uint8_t>(2 * 2 * 4, 0x38), {0, 0, 0, 0x40, 0, 0, 0x80, 0x3F}};
  CodedWeight weight{FormatId::kFp8PerTensor,
                     {2, 2, 4},
                     By(Granularity::kTensor),
                     {{Role::kValues, 0, DType::kF8E4M3, {2, 2, 4}, 16}, {Role::kScale, 1, DType::kF32, {2}, 8}}};
  std::vector<float> expected(16, 2.0f);
  std::fill(expected.begin() + 8, expected.end(), 1.0f);
  EXPECT_EQ(Decoded(weight, parts, 3), expected);
  weight.parts[1].shape = {};
  EXPECT_EQ(Decoded(weight, parts, 3), std::vector<float>(16, 2.0f));
}

TEST(CodecsTest, SaysWhichWeightsOfAFormatAreNotRead) {
  const auto why = [](FormatId format, Shape shape, Variant variant) {
    return WhyNotDecoded({format,
                          std::move(shape),
                          variant,
                          {{Role::kValues, 0, DType::kU8, {}, 1}, {Role::kScale, 0, DType::kF32, {}, 4}}})
        .value_or("");
  };
  EXPECT_THAT(why(FormatId::kFp8Block, {2, 192, 128}, By(Granularity::kTiles)),
              HasSubstr("do not fit an expert's rows"));
  EXPECT_EQ(why(FormatId::kFp8Block, {2, 256, 128}, By(Granularity::kTiles)), "");
  EXPECT_THAT(why(FormatId::kFp8PerTensor, {2, 8, 8}, By(Granularity::kHalves)), HasSubstr("parts of an expert"));
  EXPECT_THAT(why(FormatId::kFp8PerChannel, {2, 8, 8}, By(Granularity::kColumns)), HasSubstr("parts of an expert"));
  EXPECT_THAT(why(FormatId::kGptq, {2, 8, 8}, Grouped(8, 4)), HasSubstr("experts in one tensor"));
  EXPECT_THAT(why(FormatId::kFp8PerTensor, {8}, By(Granularity::kTensor)), HasSubstr("1 dimensions"));
  EXPECT_THAT(why(FormatId::kMxfp8, {6, 64}, Grouped(32)), HasSubstr("scales of F32"));
}

TEST(CodecsTest, RefusesWhatNoFormHolds) {
  const auto why = [](Encoding encoding, const Shape& shape) {
    const auto variant = WrittenVariant(encoding, shape);
    return variant ? std::string() : variant.errors()[0].message;
  };
  Encoding nvfp4;
  nvfp4.format = FormatId::kNvfp4;
  nvfp4.block = 64;
  EXPECT_EQ(why(nvfp4, {6, 64}), "NVFP4 in blocks of 64 can't be written");
  nvfp4.block = 16;
  EXPECT_EQ(why(nvfp4, {6, 72}), "its 72 inputs are no multiple of 16, as the format needs");
  EXPECT_EQ(why(nvfp4, {2, 72, 6}), "its 72 inputs are no multiple of 16, as the format needs");
  Encoding int4;
  int4.format = FormatId::kInt4;
  int4.block = 128;
  EXPECT_EQ(why(int4, {3, 128}), "its 3 outputs are no multiple of 2, as the format needs");
  EXPECT_THAT(why(int4, {2, 4, 128}), HasSubstr("inputs before outputs can't be written"));
  Encoding tile;
  tile.format = FormatId::kFp8Block;
  tile.block = 128;
  tile.search = ScaleSearch::kMultipliers;
  EXPECT_EQ(why(tile, {100, 100}), "a single tile whose scale is searched for can't be written");
}

}  // namespace
}  // namespace quantport
