// Numbers as they are: what is dequantized and not quantized again.
#include <cstring>

#include "codec/families.h"

namespace quantport {
namespace {

// Plain weights are views, which whoever has them reads (exec/matrix_reader.h).
constexpr std::string_view kView = "it is not coded";

Status Encode(const EncodeJob& job) {
  std::memcpy(job.codes.data(), job.rows.bytes.data(), job.codes.size());
  return {};
}

Codec Make() {
  Codec codec;
  codec.unread = kView;
  codec.encode = Encode;
  return codec;
}

}  // namespace

const Codec kPlainCodec = Make();

}  // namespace quantport
