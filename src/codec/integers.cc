// Integers of other tools: GPTQ, AutoAWQ, compressed-tensors' pack-quantized and int-quantized. A number is
// (code - zero point) * scale.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/checked.h"
#include "codec/families.h"

namespace quantport {
namespace {

constexpr uint64_t kWordBits = 32;
constexpr uint64_t kWordBytes = 4;
constexpr uint64_t kAwqPerWord = 8;
// Where AutoAWQ's word has the output of this number, in nibbles.
constexpr std::array<uint64_t, kAwqPerWord> kAwqSlots = {0, 4, 1, 5, 2, 6, 3, 7};

std::vector<uint32_t> Words(const std::vector<uint8_t>& bytes) {
  std::vector<uint32_t> words(bytes.size() / kWordBytes);
  std::memcpy(words.data(), bytes.data(), words.size() * kWordBytes);
  return words;
}

// The `bits` bits from `bit` on of a stream whose words stand `stride` apart.
int32_t BitsAt(const uint32_t* words, uint64_t stride, uint64_t bit, uint64_t bits) {
  const uint64_t shift = bit % kWordBits;
  const uint32_t* word = words + bit / kWordBits * stride;
  uint64_t value = *word >> shift;
  if (shift + bits > kWordBits) value |= static_cast<uint64_t>(word[stride]) << (kWordBits - shift);
  return static_cast<int32_t>(value & ((uint64_t{1} << bits) - 1));
}

int32_t ValueAt(const uint32_t* words, uint64_t stride, uint64_t index, uint64_t bits) {
  return BitsAt(words, stride, index * bits, bits);
}

uint64_t GroupOf(const CodedWeight& weight) {
  return weight.variant.granularity == Granularity::kGroups ? weight.variant.group : weight.shape.back();
}

// Codes as [rows, columns], scales and zero points as [rows, groups]. Numbers are exact in F32 where scales are BF16 or
// F16, and rounded once to what is asked for.
class Decoder {
 public:
  explicit Decoder(const DecodeJob& job)
      : job_(job),
        format_(job.weight.format),
        bits_(job.weight.variant.bits),
        all_rows_(job.RowsOfExpert()),
        columns_(job.Columns()),
        rows_(job.rows),
        groups_(CeilDiv(job.Columns(), GroupOf(job.weight))) {}

  Status Run() {
    for (const auto step : {&Decoder::FindGroups, &Decoder::ReadScales, &Decoder::ReadZeros, &Decoder::ReadCodes}) {
      if (auto s = (this->*step)(); !s) return s;
    }
    const quantize::Output out = {job_.out.data(), job_.type};
    for (uint64_t row = 0; row < rows_; ++row) {
      for (uint64_t column = 0; column < columns_; ++column) {
        const uint64_t at = row * groups_ + group_of_[column];
        const auto code = static_cast<float>(codes_[row * columns_ + column] - zeros_[at]);
        out.Store(row * columns_ + column, code * scales_[at]);
      }
    }
    return {};
  }

 private:
  bool InputsFirst() const { return format_ == FormatId::kGptq || format_ == FormatId::kAwq; }
  // One scale and one zero point for all rows.
  bool IsShared() const { return job_.weight.variant.granularity == Granularity::kTensor; }

  Status FindGroups() {
    group_of_.resize(columns_);
    for (uint64_t column = 0; column < columns_; ++column)
      group_of_[column] = static_cast<uint32_t>(column / GroupOf(job_.weight));
    const CodedPart* part = job_.weight.Find(Role::kGroupIndex);
    if (part == nullptr) return {};
    auto bytes = job_.reader.Read(*part, 0, columns_ * kWordBytes);
    if (!bytes) return bytes.errors();
    const std::vector<uint32_t> index = Words(*bytes);
    // compressed-tensors writes -1 where there is no order.
    if (std::find(index.begin(), index.end(), UINT32_MAX) != index.end()) return {};
    for (uint64_t column = 0; column < columns_; ++column) {
      if (index[column] < groups_) continue;
      return Error{ErrorKind::kQuantConversionUnsupported,
                   fmt::format("input {} is of group {}, and there are {}", column, index[column], groups_),
                   {},
                   {},
                   "the group index is damaged"};
    }
    group_of_ = index;
    return {};
  }

  // [groups, out] -> [rows, groups].
  std::vector<float> Turned(const std::vector<float>& values) const {
    std::vector<float> turned(values.size());
    for (uint64_t row = 0; row < rows_; ++row) {
      for (uint64_t group = 0; group < groups_; ++group) turned[row * groups_ + group] = values[group * rows_ + row];
    }
    return turned;
  }

  // Of a tensor [out, groups] with `size` bytes a number, or of one that has a single row for all.
  Result<std::vector<uint8_t>> ReadRows(const CodedPart& part, uint64_t size) const {
    if (!IsShared()) return job_.reader.Read(part, job_.first * groups_ * size, rows_ * groups_ * size);
    auto bytes = job_.reader.Read(part, 0, groups_ * size);
    if (!bytes) return bytes;
    std::vector<uint8_t> all;
    for (uint64_t row = 0; row < rows_; ++row) all.insert(all.end(), bytes->begin(), bytes->end());
    return all;
  }

  Status ReadScales() {
    const CodedPart& part = job_.Part(Role::kScale);
    const uint64_t size = static_cast<uint64_t>(DTypeBits(part.dtype)) / 8;
    auto bytes = InputsFirst()
                     ? job_.reader.ReadColumns(part, groups_, all_rows_ * size, job_.first * size, rows_ * size)
                     : ReadRows(part, size);
    if (!bytes) return bytes.errors();
    auto numbers = NumbersOf(part.dtype, *bytes);
    if (!numbers) return numbers.errors();
    scales_ = InputsFirst() ? Turned(*numbers) : std::move(*numbers);
    return {};
  }

  Status ReadZeros() {
    // Packed codes have no sign: their middle stands for zero.
    const int32_t middle = format_ == FormatId::kIntQuantized ? 0 : 1 << (bits_ - 1);
    zeros_.assign(rows_ * groups_, middle);
    const CodedPart* part = job_.weight.Find(Role::kZeroPoint);
    if (part == nullptr) return {};
    if (part->dtype != DType::kI8) return ReadPackedZeros(*part);
    auto bytes = ReadRows(*part, 1);
    if (!bytes) return bytes.errors();
    std::transform(bytes->begin(), bytes->end(), zeros_.begin(),
                   [middle](uint8_t byte) { return middle + static_cast<int8_t>(byte); });
    return {};
  }

  // Along the outputs, in words of which the first and the last may hold other rows' as well.
  Status ReadPackedZeros(const CodedPart& part) {
    const uint64_t begin = job_.first * bits_ / kWordBits;
    const uint64_t count = CeilDiv((job_.first + rows_) * bits_, kWordBits) - begin;
    const uint64_t skipped = job_.first * bits_ - begin * kWordBits;
    auto bytes = InputsFirst()
                     ? job_.reader.ReadColumns(part, groups_, CeilDiv(all_rows_ * bits_, kWordBits) * kWordBytes,
                                               begin * kWordBytes, count * kWordBytes)
                     : job_.reader.Read(part, begin * groups_ * kWordBytes, count * groups_ * kWordBytes);
    if (!bytes) return bytes.errors();
    const std::vector<uint32_t> words = Words(*bytes);
    for (uint64_t group = 0; group < groups_; ++group) {
      const uint32_t* own = words.data() + (InputsFirst() ? group * count : group);
      for (uint64_t row = 0; row < rows_; ++row) {
        int32_t zero;
        if (format_ == FormatId::kAwq) {
          zero = ValueAt(own + row / kAwqPerWord, 1, kAwqSlots[row % kAwqPerWord], bits_);
        } else {
          zero = BitsAt(own, InputsFirst() ? 1 : groups_, skipped + row * bits_, bits_);
        }
        zeros_[row * groups_ + group] = zero + (job_.weight.zeros_less_one ? 1 : 0);
      }
    }
    return {};
  }

  Status ReadCodes() {
    codes_.resize(rows_ * columns_);
    switch (format_) {
      case FormatId::kIntQuantized:
        return ReadBytesAsCodes();
      case FormatId::kPackQuantized:
        return ReadPackedRows();
      case FormatId::kGptq:
        return ReadPackedInputs();
      default:
        return ReadAwq();
    }
  }

  Status ReadBytesAsCodes() {
    auto bytes = job_.ReadRows(Role::kValues, columns_);
    if (!bytes) return bytes.errors();
    std::transform(bytes->begin(), bytes->end(), codes_.begin(),
                   [](uint8_t byte) { return static_cast<int8_t>(byte); });
    return {};
  }

  Status ReadPackedRows() {
    const uint64_t row_words = CeilDiv(columns_ * bits_, kWordBits);
    auto bytes = job_.ReadRows(Role::kValues, row_words * kWordBytes);
    if (!bytes) return bytes.errors();
    const std::vector<uint32_t> words = Words(*bytes);
    for (uint64_t row = 0; row < rows_; ++row) {
      for (uint64_t column = 0; column < columns_; ++column)
        codes_[row * columns_ + column] = ValueAt(words.data() + row * row_words, 1, column, bits_);
    }
    return {};
  }

  Status ReadPackedInputs() {
    const uint64_t word_rows = CeilDiv(columns_ * bits_, kWordBits);
    auto bytes = job_.reader.ReadColumns(job_.Part(Role::kValues), word_rows, all_rows_ * kWordBytes,
                                         job_.first * kWordBytes, rows_ * kWordBytes);
    if (!bytes) return bytes.errors();
    const std::vector<uint32_t> words = Words(*bytes);
    for (uint64_t row = 0; row < rows_; ++row) {
      for (uint64_t column = 0; column < columns_; ++column)
        codes_[row * columns_ + column] = ValueAt(words.data() + row, rows_, column, bits_);
    }
    return {};
  }

  // Rows are multiples of eight here.
  Status ReadAwq() {
    const uint64_t words_here = CeilDiv(rows_, kAwqPerWord);
    auto bytes = job_.reader.ReadColumns(job_.Part(Role::kValues), columns_, all_rows_ / kAwqPerWord * kWordBytes,
                                         job_.first / kAwqPerWord * kWordBytes, words_here * kWordBytes);
    if (!bytes) return bytes.errors();
    const std::vector<uint32_t> words = Words(*bytes);
    for (uint64_t row = 0; row < rows_; ++row) {
      for (uint64_t column = 0; column < columns_; ++column)
        codes_[row * columns_ + column] =
            ValueAt(words.data() + column * words_here + row / kAwqPerWord, 1, kAwqSlots[row % kAwqPerWord], bits_);
    }
    return {};
  }

  const DecodeJob& job_;
  const FormatId format_;
  const uint64_t bits_;
  const uint64_t all_rows_;
  const uint64_t columns_;
  const uint64_t rows_;
  const uint64_t groups_;
  std::vector<uint32_t> group_of_;  // of each column
  std::vector<float> scales_;
  std::vector<int32_t> zeros_;
  std::vector<int32_t> codes_;
};

Status Decode(const DecodeJob& job) { return Decoder(job).Run(); }

std::optional<std::string> WhyUnread(const CodedWeight& weight) {
  if (weight.shape.size() != 2) return " with experts in one tensor";
  if (GroupOf(weight) == 0) return " without inputs";
  if (weight.variant.bits == 0 || weight.variant.bits > 8) return " of a width that can't be told";
  const DType scales = weight.Find(Role::kScale)->dtype;
  return IsScaleType(scales) ? std::nullopt : std::optional(" with scales of " + std::string(DTypeName(scales)));
}

uint64_t WordOfOutputs(const CodedWeight&) { return kAwqPerWord; }

Codec Make() {
  Codec codec;
  codec.why_unread = WhyUnread;
  codec.decode = Decode;
  codec.unwritten = "another tool's format";
  return codec;
}

Codec MakeAwq() {
  Codec codec = Make();
  codec.read_step = WordOfOutputs;
  return codec;
}

}  // namespace

const Codec kIntegerCodec = Make();
const Codec kAwqCodec = MakeAwq();

}  // namespace quantport
