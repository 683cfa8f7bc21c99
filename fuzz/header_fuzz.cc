// Headers: an input is the number of data bytes in decimal, a line break, and the header's JSON.
//
// Whatever is accepted must be JSON to another library as well, cover its data once, and come back equal when it is
// written and read again.
#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <string_view>

#include "check.h"
#include "safetensors/header.h"

namespace quantport {
namespace {

using fuzz::Check;

// Any JSON; numbers beyond a double's range are none to nlohmann, but may stand in fields that nobody reads.
class AnyJson : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(size_t) override { return true; }
  bool key(string_t&) override { return true; }
  bool end_object() override { return true; }
  bool start_array(size_t) override { return true; }
  bool end_array() override { return true; }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& error) override {
    constexpr int kNumberOverflow = 406;
    broken_ |= error.id != kNumberOverflow;
    return false;
  }
  bool broken() const { return broken_; }

 private:
  bool broken_ = false;
};

bool IsJson(std::string_view text) {
  AnyJson any;
  nlohmann::json::sax_parse(text, &any);
  return !any.broken();
}

bool SameTensor(const TensorInfo& a, const TensorInfo& b) {
  return a.name == b.name && a.dtype == b.dtype && a.shape == b.shape && a.begin == b.begin && a.end == b.end;
}

void CheckAccepted(const Header& header, std::string_view json) {
  Check(IsJson(json), "an accepted header is JSON");
  uint64_t end = 0;
  for (const TensorInfo& tensor : header.tensors) {
    Check(tensor.begin == end, "tensors follow each other without holes");
    Check(TensorBytes(tensor.dtype, tensor.shape) == tensor.end - tensor.begin, "a tensor fills its offsets");
    end = tensor.end;
  }
  Check(end == header.data_bytes, "tensors cover the data");

  const auto bytes = SerializeHeader(header.tensors, header.metadata, "again");
  Check(bytes.ok(), "an accepted header can be written");
  Check(bytes->size() % 8 == 0, "data starts at a multiple of 8");
  const uint64_t file_size = bytes->size() + header.data_bytes;
  const auto length = ParseHeaderLength(std::as_bytes(std::span(*bytes)).first(kLengthBytes), file_size, "again");
  Check(length.ok() && *length == bytes->size() - kLengthBytes, "a written length is that of the header");
  const auto again = ParseHeader(std::string_view(*bytes).substr(kLengthBytes), file_size, "again");
  Check(again.ok(), "a written header is accepted");
  Check(again->metadata == header.metadata, "metadata comes back");
  Check(std::equal(again->tensors.begin(), again->tensors.end(), header.tensors.begin(), header.tensors.end(),
                   SameTensor),
        "tensors come back");
}

}  // namespace
}  // namespace quantport

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quantport;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  (void)ParseHeaderLength(std::as_bytes(std::span(data, std::min<size_t>(size, kLengthBytes))), size, "fuzz");
  uint32_t data_bytes = 0;
  const size_t line = input.find('\n');
  if (line == std::string_view::npos) return 0;
  std::from_chars(input.data(), input.data() + line, data_bytes);
  const std::string_view json = input.substr(line + 1);
  const auto header = ParseHeader(json, kLengthBytes + json.size() + data_bytes, "fuzz");
  if (header) {
    CheckAccepted(*header, json);
  } else {
    for (const Error& error : header.errors()) (void)error.ToString();
  }
  return 0;
}
