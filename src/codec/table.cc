// The table of codecs, a line for each format. A new one is a line here, and a file where none fits.
#include <array>

#include "codec/families.h"

namespace quantport {
namespace {

constexpr std::string_view kOthers = "a format of other tools, which is read only";

constexpr Codec Refused(std::string_view unread, std::string_view unwritten = kOthers) {
  Codec codec;
  codec.unread = unread;
  codec.unwritten = unwritten;
  return codec;
}

const Codec kNvfp4Svd =
    Refused("its low-rank factors would have to be multiplied and added", "its factors need activations");
const Codec kMxfp6 =
    Refused("nothing in its tensors says whether values have two bits of exponent or three", "ModelOpt exports no FP6");
const Codec kW4A8Awq =
    Refused("its numbers are rounded a second time, to FP8, where they are used", "its scales need activations");
const Codec kBitsAndBytes4Bit = Refused("its values are looked up in a table of their own, flattened over rows");
const Codec kBitsAndBytes8Bit = Refused("its scales are largest magnitudes, which no codec here takes");
const Codec kQuarkInt4 = Refused("the order in which its words hold values stands in Quark's config alone");
const Codec kUnrecognized = Refused("tensors that are no format's", "no format");

// A switch over all of FormatId: the compiler tells where a new one is missing.
const Codec* Find(FormatId format) {
  switch (format) {
    case FormatId::kPlain:
      return &kPlainCodec;
    case FormatId::kNvfp4:
    case FormatId::kNvfp4WeightOnly:
      return &kNvfp4Codec;
    case FormatId::kW4A8Nvfp4Fp8:
      return &kW4A8Nvfp4Codec;
    case FormatId::kNvfp4Awq:
    case FormatId::kNvfp4Pack:
      return &kNvfp4ReadCodec;
    case FormatId::kNvfp4Svd:
      return &kNvfp4Svd;
    case FormatId::kFp8PerTensor:
    case FormatId::kFp8PerChannel:
    case FormatId::kFp8Block:
      return &kFp8Codec;
    case FormatId::kFp8Group:
      return &kFp8ReadCodec;
    case FormatId::kMxfp8:
      return &kMxfp8Codec;
    case FormatId::kMxfp6:
      return &kMxfp6;
    case FormatId::kMxfp4:
    case FormatId::kW4A8Mxfp4Fp8:
      return &kMxfp4Codec;
    case FormatId::kMxfp4Pack:
      return &kMxfp4ReadCodec;
    case FormatId::kMxfp4Blocks:
      return &kMxfp4BlocksCodec;
    case FormatId::kFp4Block:
      return &kFp4BlockCodec;
    case FormatId::kInt4:
      return &kInt4Codec;
    case FormatId::kW4A8Awq:
      return &kW4A8Awq;
    case FormatId::kInt8:
    case FormatId::kInt8SmoothQuant:
      return &kInt8Codec;
    case FormatId::kIntQuantized:
    case FormatId::kPackQuantized:
    case FormatId::kGptq:
      return &kIntegerCodec;
    case FormatId::kAwq:
      return &kAwqCodec;
    case FormatId::kBitsAndBytes4Bit:
      return &kBitsAndBytes4Bit;
    case FormatId::kBitsAndBytes8Bit:
      return &kBitsAndBytes8Bit;
    case FormatId::kQuarkInt4:
      return &kQuarkInt4;
    case FormatId::kUnrecognized:
      break;
  }
  return &kUnrecognized;
}

}  // namespace

const Codec& CodecOf(FormatId format) { return *Find(format); }

}  // namespace quantport
