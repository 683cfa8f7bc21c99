#include "safetensors/header.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "unit/error_lines.h"

namespace quantport {
namespace {

using test::ErrorLines;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;
using testing::StartsWith;

constexpr std::string_view kFile = "model.safetensors";

Result<Header> Parse(const std::string& json, uint64_t data_bytes) {
  return ParseHeader(json, kLengthBytes + json.size() + data_bytes, kFile);
}

// The defects of a header text in front of `data_bytes` bytes, "tensor: message" each.
std::vector<std::string> Defects(const std::string& json, uint64_t data_bytes) {
  const auto header = Parse(json, data_bytes);
  std::vector<std::string> lines;
  if (header) return lines;
  for (const Error& error : header.errors()) {
    EXPECT_EQ(error.kind, ErrorKind::kInvalidHeader) << error.ToString();
    EXPECT_EQ(error.file, kFile);
    lines.push_back(error.tensor.empty() ? error.message : error.tensor + ": " + error.message);
  }
  return lines;
}

std::string Tensor(std::string_view name, std::string_view dtype, std::string_view shape, uint64_t begin,
                   uint64_t end) {
  return fmt::format(R"("{}":{{"dtype":"{}","shape":{},"data_offsets":[{},{}]}})", name, dtype, shape, begin, end);
}

// A header of one tensor with these fields as JSON text.
std::string OneTensor(std::string_view fields) { return fmt::format(R"({{"a":{{{}}}}})", fields); }

Result<uint64_t> ParseLength(uint64_t length, uint64_t file_size) {
  std::array<std::byte, kLengthBytes> bytes;
  std::memcpy(bytes.data(), &length, sizeof length);
  return ParseHeaderLength(bytes, file_size, kFile);
}

// ---- the length field -------------------------------------------------------------------------------------------

TEST(HeaderLengthTest, RefusesAFileTooShortForTheLengthField) {
  const std::array<std::byte, 3> bytes = {};
  const auto length = ParseHeaderLength(bytes, 3, kFile);
  ASSERT_FALSE(length.ok());
  EXPECT_EQ(length.errors()[0].ToString(),
            "model.safetensors: the file has 3 bytes, too few for a safetensors header (a download that was cut off, "
            "or not a safetensors file)");
  EXPECT_THAT(ErrorLines(ParseHeaderLength({}, 0, kFile)),
              ElementsAre("InvalidHeaderError the file has 0 bytes, too few for a safetensors header"));
}

TEST(HeaderLengthTest, AcceptsAHeaderOfExactlyTheCap) {
  const auto length = ParseLength(100'000'000, 100'000'008);
  ASSERT_TRUE(length.ok());
  EXPECT_EQ(*length, 100'000'000u);
}

TEST(HeaderLengthTest, RefusesAHeaderAboveTheCap) {
  EXPECT_THAT(ErrorLines(ParseLength(100'000'001, 1'000'000'000)),
              ElementsAre("InvalidHeaderError the header claims 100000001 bytes, above the format's cap of 100000000"));
  EXPECT_THAT(ErrorLines(ParseLength(UINT64_MAX, UINT64_MAX)),
              ElementsAre(HasSubstr("claims 18446744073709551615 bytes, above the format's cap")));
}

TEST(HeaderLengthTest, RefusesAHeaderThatEndsBehindTheFile) {
  EXPECT_TRUE(ParseLength(100, 108).ok());
  EXPECT_THAT(ErrorLines(ParseLength(100, 107)),
              ElementsAre("InvalidHeaderError the header claims 100 bytes, but the file has only 107"));
}

// ---- the JSON text ----------------------------------------------------------------------------------------------

TEST(HeaderTest, RefusesTextThatIsNotJson) {
  for (const std::string json : {"", " ", "hello", "{", "}", R"({"a")", R"({"a":})", R"({"a":{"dtype"}})",
                                 R"({"a" {}})", R"({,})", "{\"a\n\":{}}"}) {
    EXPECT_THAT(Defects(json, 0), ElementsAre(HasSubstr("invalid JSON in the header: "))) << json;
  }
}

TEST(HeaderTest, RefusesJsonThatIsNotAnObject) {
  for (const std::string json : {"[]", "\"text\"", "3", "null", "true"}) {
    EXPECT_THAT(Defects(json, 0), ElementsAre(StartsWith("invalid JSON in the header: "))) << json;
  }
}

TEST(HeaderTest, RefusesATensorThatIsNotAnObject) {
  for (const std::string value : {"[]", "\"text\"", "3", "null"}) {
    EXPECT_THAT(Defects(R"({"a":)" + value + "}", 0), ElementsAre(StartsWith("a: invalid JSON in the header: ")))
        << value;
  }
}

TEST(HeaderTest, RefusesInvalidUtf8) {
  // A stray byte, a sequence that is cut off, an overlong slash, an encoded surrogate, a code point above U+10FFFF.
  for (const std::string bytes : {"\xff", "\xc3", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80"}) {
    EXPECT_THAT(Defects("{" + Tensor("n" + bytes, "U8", "[1]", 0, 1) + "}", 1),
                ElementsAre("the header is not valid UTF-8"));
    EXPECT_THAT(Defects(R"({"__metadata__":{"k":")" + bytes + "\"}}", 0), ElementsAre("the header is not valid UTF-8"));
  }
}

TEST(HeaderTest, RefusesAnEscapedHalfOfASurrogatePair) {
  // Written out again it would be invalid UTF-8.
  for (const std::string escape : {R"(\ud800)", R"(\udc00)", R"(\ud800\ud800)", R"(\ud800x)"}) {
    EXPECT_FALSE(Parse("{" + Tensor(escape, "U8", "[1]", 0, 1) + "}", 1).ok()) << escape;
    EXPECT_FALSE(Parse(R"({"__metadata__":{"k":")" + escape + "\"}}", 0).ok()) << escape;
  }
}

TEST(HeaderTest, RefusesAByteOrderMark) { EXPECT_FALSE(Parse("\xef\xbb\xbf{}", 0).ok()); }

TEST(HeaderTest, RefusesCharactersAfterTheObject) {
  EXPECT_THAT(Defects("{}}", 0), ElementsAre("trailing characters after the header's JSON object"));
  EXPECT_THAT(Defects("{}{}", 0), ElementsAre("trailing characters after the header's JSON object"));
  for (const std::string tail : {"x", ",", "\"\"", "0", "\x01"}) {
    EXPECT_FALSE(Parse("{}" + tail, 0).ok()) << tail;
    EXPECT_FALSE(Parse("{" + Tensor("a", "U8", "[1]", 0, 1) + "}   " + tail, 1).ok()) << tail;
  }
  EXPECT_FALSE(Parse(std::string("{}\0", 3), 0).ok());
}

TEST(HeaderTest, RefusesMalformedJsonInAFieldThatIsIgnored) {
  const std::string start = R"("dtype":"U8","shape":[1],"data_offsets":[0,1],"extra":)";
  for (const std::string value : {"nonsense", "[1,]", "[1 2]", "{1:2}", "01", "\"\\q\"", "[}", "1e", R"("x":[1])"}) {
    EXPECT_FALSE(Parse(OneTensor(start + value), 1).ok()) << value;
  }
}

// ---- names and fields -------------------------------------------------------------------------------------------

TEST(HeaderTest, RefusesATensorNameThatStandsTwice) {
  EXPECT_THAT(Defects("{" + Tensor("a", "U8", "[1]", 0, 1) + "," + Tensor("a", "U8", "[1]", 1, 2) + "}", 2),
              ElementsAre("a: the name stands twice in the header"));
  EXPECT_THAT(Defects("{" + Tensor("a", "U8", "[1]", 0, 1) + "," + Tensor(R"(\u0061)", "U8", "[1]", 1, 2) + "}", 2),
              ElementsAre("a: the name stands twice in the header"));
}

TEST(HeaderTest, RefusesAFieldThatStandsTwice) {
  const std::string good = R"("dtype":"U8","shape":[1],"data_offsets":[0,1])";
  EXPECT_THAT(Defects(OneTensor(good + R"(,"dtype":"U8")"), 1), ElementsAre("a: the field dtype stands twice"));
  EXPECT_THAT(Defects(OneTensor(good + R"(,"shape":[1])"), 1), ElementsAre("a: the field shape stands twice"));
  EXPECT_THAT(Defects(OneTensor(good + R"(,"data_offsets":[0,1])"), 1),
              ElementsAre("a: the field data_offsets stands twice"));
}

TEST(HeaderTest, RefusesAMissingField) {
  EXPECT_THAT(Defects(OneTensor(R"("shape":[2],"data_offsets":[0,8])"), 8),
              ElementsAre("a: the field dtype is missing"));
  EXPECT_THAT(Defects(OneTensor(R"("dtype":"F32","data_offsets":[0,8])"), 8),
              ElementsAre("a: the field shape is missing"));
  EXPECT_THAT(Defects(OneTensor(R"("dtype":"F32","shape":[2])"), 0),
              ElementsAre("a: the field data_offsets is missing"));
  EXPECT_THAT(Defects(OneTensor(""), 0), ElementsAre("a: the field dtype is missing", "a: the field shape is missing",
                                                     "a: the field data_offsets is missing"));
}

TEST(HeaderTest, RefusesAnUnknownDtypeAndGuessesNothingFromIt) {
  for (const std::string dtype : {"F7", "f32", "", "F32 ", "float32"}) {
    EXPECT_THAT(Defects("{" + Tensor("a", dtype, "[2]", 0, 8) + "}", 8),
                ElementsAre(fmt::format("a: unknown dtype \"{}\"", dtype)));
  }
}

TEST(HeaderTest, RefusesADtypeThatIsNotAString) {
  EXPECT_THAT(Defects(OneTensor(R"("dtype":5,"shape":[1],"data_offsets":[0,1])"), 1),
              ElementsAre(StartsWith("a: invalid JSON in the header: ")));
}

TEST(HeaderTest, RefusesAShapeThatHoldsNoWholeNumbers) {
  for (const std::string shape : {"[3.0]", "[-3]", "[\"3\"]", "[null]", "[true]", "[1e2]", "[[3]]",
                                  "[18446744073709551616]", "[1, 2.5]", "[01]"}) {
    EXPECT_THAT(Defects("{" + Tensor("a", "U8", shape, 0, 3) + "}", 3),
                ElementsAre("a: shape holds something that is not a whole number below 2^64"))
        << shape;
  }
}

TEST(HeaderTest, RefusesAShapeThatIsNotAList) {
  for (const std::string shape : {"3", "\"3\"", "{}", "null"}) {
    EXPECT_THAT(Defects("{" + Tensor("a", "U8", shape, 0, 3) + "}", 3), ElementsAre("a: shape is not a list")) << shape;
  }
}

TEST(HeaderTest, RefusesOffsetsThatAreNotAPair) {
  for (const std::string offsets : {"[]", "[0]", "[0,3,3]"}) {
    EXPECT_THAT(Defects(OneTensor(R"("dtype":"U8","shape":[3],"data_offsets":)" + offsets), 3),
                ElementsAre("a: data_offsets is not a pair"))
        << offsets;
  }
  EXPECT_THAT(Defects(OneTensor(R"("dtype":"U8","shape":[3],"data_offsets":{})"), 3),
              ElementsAre("a: data_offsets is not a list"));
  EXPECT_THAT(Defects(OneTensor(R"("dtype":"U8","shape":[3],"data_offsets":[-1,3])"), 3),
              ElementsAre("a: data_offsets holds something that is not a whole number below 2^64"));
}

// ---- the layout of the data -------------------------------------------------------------------------------------

TEST(HeaderTest, RefusesOffsetsThatRunBackwards) {
  EXPECT_THAT(Defects("{" + Tensor("a", "U8", "[3]", 3, 0) + "}", 3),
              testing::Contains("a: data_offsets [3, 0] run backwards"));
}

TEST(HeaderTest, RefusesOffsetsPastTheEnd) {
  EXPECT_THAT(Defects("{" + Tensor("a", "U8", "[9]", 0, 9) + "}", 8),
              ElementsAre("a: data_offsets [0, 9] point past the end of the file's 8 data bytes"));
  EXPECT_THAT(Defects("{" + Tensor("a", "U8", "[18446744073709551615]", 0, UINT64_MAX) + "}", 8),
              ElementsAre("a: data_offsets [0, 18446744073709551615] point past the end of the file's 8 data bytes"));
}

TEST(HeaderTest, RefusesTensorsThatOverlap) {
  EXPECT_THAT(Defects("{" + Tensor("a", "U8", "[4]", 0, 4) + "," + Tensor("b", "U8", "[4]", 2, 6) + "}", 6),
              ElementsAre("b: this tensor's data overlaps the one before by 2 bytes"));
  // Two names for the same bytes, as a naive tie would write them.
  EXPECT_THAT(Defects("{" + Tensor("a", "U8", "[4]", 0, 4) + "," + Tensor("b", "U8", "[4]", 0, 4) + "}", 4),
              ElementsAre("b: this tensor's data overlaps the one before by 4 bytes"));
  EXPECT_THAT(Defects("{" + Tensor("a", "U8", "[8]", 0, 8) + "," + Tensor("b", "U8", "[2]", 2, 4) + "}", 8),
              ElementsAre("b: this tensor's data overlaps the one before by 6 bytes"));
}

TEST(HeaderTest, RefusesAnEmptyTensorInsideAnother) {
  EXPECT_THAT(Defects("{" + Tensor("a", "U8", "[4]", 0, 4) + "," + Tensor("b", "U8", "[0]", 2, 2) + "}", 4),
              ElementsAre("b: this tensor's data overlaps the one before by 2 bytes"));
}

TEST(HeaderTest, RefusesAHoleBetweenTensors) {
  EXPECT_THAT(Defects("{" + Tensor("a", "U8", "[4]", 0, 4) + "," + Tensor("b", "U8", "[4]", 8, 12) + "}", 12),
              ElementsAre("b: a hole of 4 bytes before this tensor's data"));
  EXPECT_THAT(Defects("{" + Tensor("a", "U8", "[4]", 4, 8) + "}", 8),
              ElementsAre("a: a hole of 4 bytes before this tensor's data"));
}

TEST(HeaderTest, RefusesTrailingBytes) {
  EXPECT_THAT(Defects("{" + Tensor("a", "U8", "[4]", 0, 4) + "}", 7),
              ElementsAre("3 trailing bytes after the last tensor"));
  EXPECT_THAT(Defects("{}", 7), ElementsAre("7 trailing bytes after the last tensor"));
}

TEST(HeaderTest, RefusesAShapeThatTakesOtherBytesThanTheOffsets) {
  EXPECT_THAT(Defects("{" + Tensor("a", "F32", "[3]", 0, 8) + "}", 8),
              ElementsAre("a: shape [3] in F32 takes 12 bytes, but data_offsets hold 8"));
  EXPECT_THAT(Defects("{" + Tensor("a", "BF16", "[]", 0, 8) + "}", 8),
              ElementsAre("a: shape [] in BF16 takes 2 bytes, but data_offsets hold 8"));
  EXPECT_THAT(Defects("{" + Tensor("a", "BF16", "[2, 0]", 0, 8) + "}", 8),
              ElementsAre("a: shape [2, 0] in BF16 takes 0 bytes, but data_offsets hold 8"));
}

TEST(HeaderTest, RefusesAShapeThatOverflows) {
  // 2^63 * 4 wraps to 0 elements; 2^61 elements of 8 bytes only overflow in bits.
  EXPECT_THAT(
      Defects("{" + Tensor("a", "U8", "[9223372036854775808,4]", 0, 0) + "}", 0),
      ElementsAre("a: the size of shape [9223372036854775808, 4] in U8 overflows or does not fill whole bytes"));
  EXPECT_THAT(Defects("{" + Tensor("a", "F64", "[2305843009213693952]", 0, 0) + "}", 0),
              ElementsAre("a: the size of shape [2305843009213693952] in F64 overflows or does not fill whole bytes"));
}

TEST(HeaderTest, RefusesSubByteTensorsThatDoNotFillTheirBytes) {
  EXPECT_THAT(Defects("{" + Tensor("a", "F4", "[3]", 0, 2) + "}", 2),
              ElementsAre("a: the size of shape [3] in F4 overflows or does not fill whole bytes"));
  EXPECT_THAT(Defects("{" + Tensor("a", "F6_E2M3", "[3]", 0, 3) + "}", 3),
              ElementsAre("a: the size of shape [3] in F6_E2M3 overflows or does not fill whole bytes"));
}

// ---- metadata ---------------------------------------------------------------------------------------------------

TEST(HeaderTest, RefusesMetadataThatIsNoObjectOfStrings) {
  EXPECT_THAT(Defects(R"({"__metadata__":3})", 0), ElementsAre("__metadata__ is not an object of strings"));
  EXPECT_THAT(Defects(R"({"__metadata__":["a"]})", 0), ElementsAre("__metadata__ is not an object of strings"));
  for (const std::string value : {"3", "null", "{}", "[\"x\"]", "true"}) {
    EXPECT_THAT(Defects(R"({"__metadata__":{"k":)" + value + "}}", 0),
                ElementsAre("__metadata__ value of \"k\" is not a string"))
        << value;
  }
}

TEST(HeaderTest, RefusesMetadataThatStandsTwice) {
  EXPECT_THAT(Defects(R"({"__metadata__":{"k":"1"},"__metadata__":{"k":"1"}})", 0),
              ElementsAre("__metadata__ stands twice"));
  EXPECT_THAT(Defects(R"({"__metadata__":null,"__metadata__":null})", 0), ElementsAre("__metadata__ stands twice"));
  EXPECT_THAT(Defects(R"({"__metadata__":{"k":"1","k":"2"}})", 0), ElementsAre("__metadata__ key \"k\" stands twice"));
}

// ---- several at once --------------------------------------------------------------------------------------------

TEST(HeaderTest, ReportsEveryDefectOfAFile) {
  const std::string json = "{" + Tensor("a", "F32", "[3]", 0, 8) + "," + Tensor("b", "U8", "[4]", 6, 10) + "," +
                           Tensor("c", "X8", "[2]", 12, 14) + "," + Tensor("d", "U8", "[1]", 14, 15) + "," +
                           Tensor("d", "U8", "[1]", 15, 16) + R"(,"e":{"shape":[0],"data_offsets":[16,16]})" +
                           R"(,"__metadata__":{"k":"1","k":"2"}})";
  EXPECT_THAT(
      Defects(json, 20),
      testing::UnorderedElementsAre(
          "c: unknown dtype \"X8\"", "e: the field dtype is missing", "__metadata__ key \"k\" stands twice",
          "d: the name stands twice in the header", "a: shape [3] in F32 takes 12 bytes, but data_offsets hold 8",
          "b: this tensor's data overlaps the one before by 2 bytes", "c: a hole of 2 bytes before this tensor's data",
          "4 trailing bytes after the last tensor"));
}

TEST(HeaderTest, ReportsDefectsBehindATensorThatRunsBackwards) {
  EXPECT_THAT(Defects("{" + Tensor("a", "U8", "[3]", 3, 0) + "," + Tensor("b", "F32", "[2]", 3, 7) + "}", 7),
              testing::IsSupersetOf({"a: data_offsets [3, 0] run backwards",
                                     "b: shape [2] in F32 takes 8 bytes, but data_offsets hold 4"}));
}

// ---- what is accepted -------------------------------------------------------------------------------------------

TEST(HeaderTest, AcceptsEveryDtypeWithItsWidth) {
  struct Row {
    std::string_view dtype;
    uint64_t bits;
  };
  // Widths of the official library's Dtype, written out here so that the table in src/ is held against something.
  const std::vector<Row> rows = {{"BOOL", 8},        {"F4", 4},         {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
                                 {"I8", 8},          {"F8_E5M2", 8},    {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"I16", 16},
                                 {"U16", 16},        {"F16", 16},       {"BF16", 16},   {"I32", 32},    {"U32", 32},
                                 {"F32", 32},        {"C64", 64},       {"F64", 64},    {"I64", 64},    {"U64", 64},
                                 {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}};
  ASSERT_EQ(rows.size(), static_cast<size_t>(kDTypeCount));
  for (const Row& row : rows) {
    const uint64_t bytes = 3 * 4 * row.bits / 8;
    const auto header = Parse("{" + Tensor("a", row.dtype, "[3,4]", 0, bytes) + "}", bytes);
    ASSERT_TRUE(header.ok()) << row.dtype;
    EXPECT_EQ(DTypeName(header->tensors[0].dtype), row.dtype);
    EXPECT_THAT(header->tensors[0].shape, ElementsAre(3, 4));
    EXPECT_EQ(header->tensors[0].end, bytes);
  }
}

TEST(HeaderTest, AcceptsAnEmptyHeader) {
  const auto header = Parse("{}", 0);
  ASSERT_TRUE(header.ok());
  EXPECT_THAT(header->tensors, IsEmpty());
  EXPECT_EQ(header->data_start, 10u);
  EXPECT_EQ(header->data_bytes, 0u);
}

TEST(HeaderTest, AcceptsPaddingBehindTheObject) {
  const auto header = Parse("{" + Tensor("a", "U8", "[1]", 0, 1) + "}          ", 1);
  ASSERT_TRUE(header.ok());
  EXPECT_EQ(header->tensors[0].name, "a");
}

TEST(HeaderTest, KeepsZeroDimensionalAndEmptyTensorsApart) {
  const auto header = Parse("{" + Tensor("scalar", "F32", "[]", 0, 4) + "," + Tensor("one", "F32", "[1]", 4, 8) + "," +
                                Tensor("none", "F32", "[0]", 8, 8) + "," + Tensor("rows", "F32", "[2,0,3]", 8, 8) + "}",
                            8);
  ASSERT_TRUE(header.ok());
  EXPECT_THAT(header->tensors[0].shape, IsEmpty());
  EXPECT_THAT(header->tensors[1].shape, ElementsAre(1));
  EXPECT_THAT(header->tensors[2].shape, ElementsAre(0));
  EXPECT_THAT(header->tensors[3].shape, ElementsAre(2, 0, 3));
}

TEST(HeaderTest, SortsTensorsByTheirData) {
  const auto header = Parse("{" + Tensor("c", "U8", "[1]", 2, 3) + "," + Tensor("a", "U8", "[1]", 0, 1) + "," +
                                Tensor("empty", "U8", "[0]", 1, 1) + "," + Tensor("b", "U8", "[1]", 1, 2) + "}",
                            3);
  ASSERT_TRUE(header.ok());
  std::vector<std::string> names;
  for (const TensorInfo& tensor : header->tensors) names.push_back(tensor.name);
  EXPECT_THAT(names, ElementsAre("a", "empty", "b", "c"));
}

TEST(HeaderTest, KeepsMetadataInTheFilesOrder) {
  const auto header = Parse(R"({"__metadata__":{"z":"1","a":"","m":"\"\u00e9"}})", 0);
  ASSERT_TRUE(header.ok());
  EXPECT_THAT(header->metadata, ElementsAre(Pair("z", "1"), Pair("a", ""), Pair("m", "\"\xc3\xa9")));
}

TEST(HeaderTest, AcceptsMetadataThatIsNull) {
  const auto header = Parse("{\"__metadata__\":null," + Tensor("a", "U8", "[1]", 0, 1) + "}", 1);
  ASSERT_TRUE(header.ok());
  EXPECT_THAT(header->metadata, IsEmpty());
  EXPECT_EQ(header->tensors.size(), 1u);
}

TEST(HeaderTest, IgnoresFieldsItDoesNotKnow) {
  const auto header = Parse(
      OneTensor(R"("new":{"x":[1,{"dtype":"F64"}]},"dtype":"U8","s":"\"}","shape":[1],"data_offsets":[0,1],"n":null)"),
      1);
  ASSERT_TRUE(header.ok());
  EXPECT_EQ(header->tensors[0].dtype, DType::kU8);
}

TEST(HeaderTest, ReadsEscapedAndUnicodeNames) {
  const auto header =
      Parse("{" + Tensor(R"(a\"b\\c\/d\n\u0000\u00e9\ud83d\ude00)", "U8", "[1]", 0, 1) + "," +
                Tensor("\xe6\xa8\xa1.\xf0\x9f\x98\x80", "U8", "[1]", 1, 2) + "," + Tensor("", "U8", "[1]", 2, 3) + "}",
            3);
  ASSERT_TRUE(header.ok());
  EXPECT_EQ(header->tensors[0].name, std::string("a\"b\\c/d\n\0\xc3\xa9\xf0\x9f\x98\x80", 15));
  EXPECT_EQ(header->tensors[1].name, "\xe6\xa8\xa1.\xf0\x9f\x98\x80");
  EXPECT_EQ(header->tensors[2].name, "");
}

TEST(HeaderTest, ReadsTwoHundredThousandTensors) {
  constexpr uint64_t kCount = 200'000;
  std::string json = "{";
  for (uint64_t i = 0; i < kCount; ++i) {
    if (i != 0) json += ',';
    json += Tensor(fmt::format("model.layers.{}.mlp.experts.{}.up_proj.weight", i / 1000, i % 1000), "BF16", "[1]",
                   2 * i, 2 * i + 2);
  }
  json += '}';
  const auto header = Parse(json, 2 * kCount);
  ASSERT_TRUE(header.ok());
  ASSERT_EQ(header->tensors.size(), kCount);
  EXPECT_EQ(header->tensors.back().name, "model.layers.199.mlp.experts.999.up_proj.weight");
  EXPECT_EQ(header->tensors.back().begin, 2 * kCount - 2);
}

}  // namespace
}  // namespace quantport
