#include "exec/integer_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/checked.h"

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

// Rows of one matrix: codes as [rows, columns], scales and zero points as [rows, groups].
class Rows {
 public:
  Rows(const PlannedMatrix& matrix, uint64_t first, uint64_t rows, const StoredBytes& stored)
      : source_(matrix.source),
        stored_(stored),
        all_rows_(matrix.rows),
        columns_(matrix.columns),
        first_(first),
        rows_(rows),
        groups_(CeilDiv(matrix.columns, matrix.source.tile_columns)) {}

  Result<std::vector<float>> Read() {
    for (const auto step : {&Rows::FindGroups, &Rows::ReadScales, &Rows::ReadZeros, &Rows::ReadCodes}) {
      if (auto s = (this->*step)(); !s) return s.errors();
    }
    std::vector<float> numbers(rows_ * columns_);
    for (uint64_t row = 0; row < rows_; ++row) {
      for (uint64_t column = 0; column < columns_; ++column) {
        const uint64_t at = row * groups_ + group_of_[column];
        numbers[row * columns_ + column] =
            static_cast<float>(codes_[row * columns_ + column] - zeros_[at]) * scales_[at];
      }
    }
    return numbers;
  }

 private:
  bool InputsFirst() const { return source_.format == FormatId::kGptq || source_.format == FormatId::kAwq; }

  Status FindGroups() {
    group_of_.resize(columns_);
    for (uint64_t column = 0; column < columns_; ++column)
      group_of_[column] = static_cast<uint32_t>(column / source_.tile_columns);
    if (!source_.group_index) return {};
    auto bytes = stored_.Read(*source_.group_index, 0, columns_ * kWordBytes);
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
  template <typename T>
  std::vector<T> Turned(const std::vector<T>& values) const {
    std::vector<T> turned(values.size());
    for (uint64_t row = 0; row < rows_; ++row) {
      for (uint64_t group = 0; group < groups_; ++group) turned[row * groups_ + group] = values[group * rows_ + row];
    }
    return turned;
  }

  // Of a tensor [out, groups] with `size` bytes a number, or of one that has a single row for all.
  Result<std::vector<uint8_t>> ReadRows(uint32_t tensor, uint64_t size) const {
    const bool shared = source_.tile_rows > 1;
    auto bytes = stored_.Read(tensor, shared ? 0 : first_ * groups_ * size, (shared ? 1 : rows_) * groups_ * size);
    if (!bytes || !shared) return bytes;
    std::vector<uint8_t> all;
    for (uint64_t row = 0; row < rows_; ++row) all.insert(all.end(), bytes->begin(), bytes->end());
    return all;
  }

  Status ReadScales() {
    const uint64_t size = static_cast<uint64_t>(DTypeBits(stored_.TypeOf(*source_.scales))) / 8;
    auto bytes = InputsFirst()
                     ? stored_.ReadColumns(*source_.scales, groups_, all_rows_ * size, first_ * size, rows_ * size)
                     : ReadRows(*source_.scales, size);
    if (!bytes) return bytes.errors();
    auto numbers = stored_.Numbers(*source_.scales, *bytes);
    if (!numbers) return numbers.errors();
    scales_ = std::move(*numbers);
    if (InputsFirst()) scales_ = Turned(scales_);
    return {};
  }

  Status ReadZeros() {
    const bool centered = source_.format == FormatId::kIntQuantized;
    zeros_.assign(rows_ * groups_, centered ? 0 : 1 << (source_.bits - 1));
    if (!source_.zeros) return {};
    if (source_.format == FormatId::kIntQuantized) {
      auto bytes = ReadRows(*source_.zeros, 1);
      if (!bytes) return bytes.errors();
      std::transform(bytes->begin(), bytes->end(), zeros_.begin(),
                     [](uint8_t byte) { return static_cast<int8_t>(byte); });
      return {};
    }
    return ReadPackedZeros();
  }

  // Along the outputs, in words of which the first and the last may hold other rows' as well.
  Status ReadPackedZeros() {
    const uint64_t bits = source_.bits;
    const bool one_row = source_.tile_rows > 1;
    const uint64_t begin = one_row ? 0 : first_ * bits / kWordBits;
    const uint64_t end = one_row ? 1 : CeilDiv((first_ + rows_) * bits, kWordBits);
    const uint64_t skipped = one_row ? 0 : first_ * bits - begin * kWordBits;
    const uint64_t count = end - begin;
    auto bytes = InputsFirst()
                     ? stored_.ReadColumns(*source_.zeros, groups_, CeilDiv(all_rows_ * bits, kWordBits) * kWordBytes,
                                           begin * kWordBytes, count * kWordBytes)
                     : stored_.Read(*source_.zeros, begin * groups_ * kWordBytes, count * groups_ * kWordBytes);
    if (!bytes) return bytes.errors();
    std::vector<uint32_t> words = Words(*bytes);
    for (uint64_t group = 0; group < groups_; ++group) {
      const uint32_t* own = words.data() + (InputsFirst() ? group * count : group);
      for (uint64_t row = 0; row < rows_; ++row) {
        int32_t zero;
        if (source_.format == FormatId::kAwq) {
          zero = ValueAt(own + row / kAwqPerWord, 1, kAwqSlots[row % kAwqPerWord], bits);
        } else {
          zero = BitsAt(own, InputsFirst() ? 1 : groups_, skipped + (one_row ? 0 : row * bits), bits);
        }
        zeros_[row * groups_ + group] = zero + (source_.zeros_less_one ? 1 : 0);
      }
    }
    return {};
  }

  Status ReadCodes() {
    codes_.resize(rows_ * columns_);
    switch (source_.format) {
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
    auto bytes = stored_.Read(source_.codes, first_ * columns_, rows_ * columns_);
    if (!bytes) return bytes.errors();
    std::transform(bytes->begin(), bytes->end(), codes_.begin(),
                   [](uint8_t byte) { return static_cast<int8_t>(byte); });
    return {};
  }

  Status ReadPackedRows() {
    const uint64_t row_words = CeilDiv(columns_ * source_.bits, kWordBits);
    auto bytes = stored_.Read(source_.codes, first_ * row_words * kWordBytes, rows_ * row_words * kWordBytes);
    if (!bytes) return bytes.errors();
    const std::vector<uint32_t> words = Words(*bytes);
    for (uint64_t row = 0; row < rows_; ++row) {
      for (uint64_t column = 0; column < columns_; ++column)
        codes_[row * columns_ + column] = ValueAt(words.data() + row * row_words, 1, column, source_.bits);
    }
    return {};
  }

  Status ReadPackedInputs() {
    const uint64_t word_rows = CeilDiv(columns_ * source_.bits, kWordBits);
    auto bytes =
        stored_.ReadColumns(source_.codes, word_rows, all_rows_ * kWordBytes, first_ * kWordBytes, rows_ * kWordBytes);
    if (!bytes) return bytes.errors();
    const std::vector<uint32_t> words = Words(*bytes);
    for (uint64_t row = 0; row < rows_; ++row) {
      for (uint64_t column = 0; column < columns_; ++column)
        codes_[row * columns_ + column] = ValueAt(words.data() + row, rows_, column, source_.bits);
    }
    return {};
  }

  // Rows are multiples of eight here.
  Status ReadAwq() {
    const uint64_t words_here = CeilDiv(rows_, kAwqPerWord);
    auto bytes = stored_.ReadColumns(source_.codes, columns_, all_rows_ / kAwqPerWord * kWordBytes,
                                     first_ / kAwqPerWord * kWordBytes, words_here * kWordBytes);
    if (!bytes) return bytes.errors();
    const std::vector<uint32_t> words = Words(*bytes);
    for (uint64_t row = 0; row < rows_; ++row) {
      for (uint64_t column = 0; column < columns_; ++column)
        codes_[row * columns_ + column] = ValueAt(words.data() + column * words_here + row / kAwqPerWord, 1,
                                                  kAwqSlots[row % kAwqPerWord], source_.bits);
    }
    return {};
  }

  const MatrixSource& source_;
  const StoredBytes& stored_;
  const uint64_t all_rows_;
  const uint64_t columns_;
  const uint64_t first_;
  const uint64_t rows_;
  const uint64_t groups_;
  std::vector<uint32_t> group_of_;  // of each column
  std::vector<float> scales_;
  std::vector<int32_t> zeros_;
  std::vector<int32_t> codes_;
};

}  // namespace

bool IsIntegerLayout(FormatId format) {
  return format == FormatId::kGptq || format == FormatId::kAwq || format == FormatId::kPackQuantized ||
         format == FormatId::kIntQuantized;
}

Result<std::vector<float>> ReadIntegers(const PlannedMatrix& matrix, uint64_t first_row, uint64_t rows,
                                        const StoredBytes& stored) {
  return Rows(matrix, first_row, rows, stored).Read();
}

}  // namespace quantport
