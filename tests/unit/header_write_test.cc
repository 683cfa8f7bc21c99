#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <random>

#include "safetensors/header.h"
#include "unit/error_lines.h"

namespace quantport {

bool operator==(const TensorInfo& a, const TensorInfo& b) {
  return a.name == b.name && a.dtype == b.dtype && a.shape == b.shape && a.begin == b.begin && a.end == b.end;
}

void PrintTo(const TensorInfo& tensor, std::ostream* out) {
  *out << fmt::format("{} {} [{}] {}..{}", tensor.name, DTypeName(tensor.dtype), fmt::join(tensor.shape, ","),
                      tensor.begin, tensor.end);
}

namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;

constexpr std::string_view kFile = "out.safetensors";

// The length field and the JSON text of a written header.
std::pair<uint64_t, std::string> Split(const std::string& bytes) {
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), kLengthBytes);
  return {length, bytes.substr(kLengthBytes)};
}

std::string Write(const std::vector<TensorInfo>& tensors, const Metadata& metadata = {}) {
  auto bytes = SerializeHeader(tensors, metadata, kFile);
  EXPECT_TRUE(bytes.ok());
  return bytes.ok() ? *bytes : std::string();
}

TEST(SerializeHeaderTest, WritesCompactJsonInTheOrderGiven) {
  const std::string bytes =
      Write({{"b", DType::kF32, {2, 3}, 0, 24}, {"a", DType::kF8E4M3, {}, 24, 25}}, {{"format", "pt"}, {"by", "x"}});
  const auto [length, json] = Split(bytes);
  EXPECT_EQ(length, json.size());
  EXPECT_EQ(json.substr(0, json.find_last_not_of(' ') + 1),
            R"({"__metadata__":{"format":"pt","by":"x"},"b":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
            R"("a":{"dtype":"F8_E4M3","shape":[],"data_offsets":[24,25]}})");
}

TEST(SerializeHeaderTest, WritesAnEmptyHeader) {
  const auto [length, json] = Split(Write({}));
  EXPECT_EQ(json, "{}      ");
  EXPECT_EQ(length, 8u);
}

TEST(SerializeHeaderTest, PadsWithSpacesToAMultipleOfEight) {
  for (size_t count = 1; count <= 16; ++count) {
    const std::string bytes = Write({{std::string(count, 'n'), DType::kU8, {1}, 0, 1}});
    EXPECT_EQ(bytes.size() % 8, 0u);
    const size_t last = bytes.find_last_not_of(' ');
    EXPECT_EQ(bytes[last], '}');
    EXPECT_LT(bytes.size() - last - 1, 8u);
  }
}

TEST(SerializeHeaderTest, EscapesWhatJsonCannotHold) {
  const std::string name = std::string("q\"b\\n\nr\rt\tz\0e\x1b", 14) + "\x7f/\xc3\xa9\xf0\x9f\x98\x80";
  const auto json = nlohmann::json::parse(Split(Write({{name, DType::kU8, {1}, 0, 1}}, {{name, name}})).second);
  EXPECT_TRUE(json.contains(name));
  EXPECT_EQ(json["__metadata__"][name], name);
}

TEST(SerializeHeaderTest, CapsTheHeaderWithItsPadding) {
  const std::vector<TensorInfo> nameless = {{"", DType::kU8, {1}, 0, 1}, {"b", DType::kU8, {1}, 1, 2}};
  const std::string text = Split(Write(nameless)).second;
  const size_t rest = text.find_last_not_of(' ') + 1;
  auto tensors = nameless;
  tensors[0].name = std::string(kMaxHeaderBytes - rest, 'n');
  auto bytes = SerializeHeader(tensors, {}, kFile);
  ASSERT_TRUE(bytes.ok());
  EXPECT_EQ(bytes->size(), kLengthBytes + kMaxHeaderBytes);

  tensors[0].name += 'n';
  bytes = SerializeHeader(tensors, {}, kFile);
  ASSERT_FALSE(bytes.ok());
  EXPECT_EQ(bytes.errors()[0].kind, ErrorKind::kInvalidHeader);
  EXPECT_EQ(bytes.errors()[0].ToString(),
            "out.safetensors: the header would take 100000008 bytes, above the format's cap of 100000000 (split the "
            "tensors over more shards with --max-shard-size)");
}

// Random headers as a stranger might write them, in the data's order as ParseHeader returns it.
class RandomHeader {
 public:
  explicit RandomHeader(uint32_t seed) : random_(seed) {
    const size_t count = Below(20);
    uint64_t offset = 0;
    for (size_t i = 0; i < count; ++i) {
      TensorInfo tensor;
      tensor.name = fmt::format("{}{}", Text(), i);
      tensor.dtype = static_cast<DType>(Below(kDTypeCount));
      const size_t rank = Below(5);
      for (size_t dim = 0; dim < rank; ++dim) tensor.shape.push_back(Below(6));
      // F4 and F6 fill whole bytes in steps of 4 elements.
      if (DTypeBits(tensor.dtype) < 8) tensor.shape.push_back(4);
      const uint64_t bytes = TensorBytes(tensor.dtype, tensor.shape).value();
      // Empty tensors that share an offset have no order in the data.
      if (bytes == 0 && i + 1 != count) continue;
      tensor.begin = offset;
      tensor.end = offset += bytes;
      tensors.push_back(std::move(tensor));
    }
    for (size_t i = Below(4); i > 0; --i) metadata.emplace_back(fmt::format("{}{}", Text(), i), Text());
  }

  std::vector<TensorInfo> tensors;
  Metadata metadata;

 private:
  size_t Below(size_t limit) { return std::uniform_int_distribution<size_t>(0, limit - 1)(random_); }

  std::string Text() {
    static const std::vector<std::string> kPieces = {"a",
                                                     ".",
                                                     "\"",
                                                     "\\",
                                                     "\n",
                                                     "\t",
                                                     "\x01",
                                                     "\xc3\xa9",
                                                     "\xe6\xa8\xa1",
                                                     "\xf0\x9f\x98\x80",
                                                     "/",
                                                     "{",
                                                     "}",
                                                     " ",
                                                     std::string(1, '\0')};
    std::string text;
    for (size_t i = Below(6); i > 0; --i) text += kPieces[Below(kPieces.size())];
    return text;
  }

  std::mt19937 random_;
};

TEST(SerializeHeaderTest, RandomHeadersComeBackAsTheyWere) {
  for (uint32_t seed = 0; seed < 2000; ++seed) {
    SCOPED_TRACE(seed);
    const RandomHeader random(seed);
    const std::string bytes = Write(random.tensors, random.metadata);
    const uint64_t data_bytes = random.tensors.empty() ? 0 : random.tensors.back().end;
    const auto [length, json] = Split(bytes);
    ASSERT_EQ(length, json.size());
    const auto header = ParseHeader(json, bytes.size() + data_bytes, kFile);
    ASSERT_TRUE(header.ok()) << header.errors()[0].ToString();
    EXPECT_THAT(header->tensors, ElementsAreArray(random.tensors));
    EXPECT_THAT(header->metadata, ElementsAreArray(random.metadata));
    EXPECT_EQ(header->data_start, bytes.size());
    EXPECT_EQ(header->data_bytes, data_bytes);
  }
}

TEST(SerializeHeaderTest, RandomHeadersReadTheSameInAnotherJsonLibrary) {
  for (uint32_t seed = 0; seed < 500; ++seed) {
    SCOPED_TRACE(seed);
    const RandomHeader random(seed);
    const auto json = nlohmann::json::parse(Split(Write(random.tensors, random.metadata)).second);
    ASSERT_EQ(json.size(), random.tensors.size() + (random.metadata.empty() ? 0 : 1));
    for (const TensorInfo& tensor : random.tensors) {
      ASSERT_TRUE(json.contains(tensor.name));
      const auto& entry = json[tensor.name];
      EXPECT_EQ(entry["dtype"], std::string(DTypeName(tensor.dtype)));
      EXPECT_EQ(entry["shape"].get<std::vector<uint64_t>>(), tensor.shape);
      EXPECT_THAT(entry["data_offsets"].get<std::vector<uint64_t>>(), ElementsAre(tensor.begin, tensor.end));
    }
    for (const auto& [key, value] : random.metadata) EXPECT_EQ(json["__metadata__"][key], value);
  }
}

}  // namespace
}  // namespace quantport
