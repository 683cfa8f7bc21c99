// A weight as it is stored quantized, and as it is to be: plain values that planning makes and codecs carry out.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "format/format.h"
#include "quantport/error.h"

namespace quantport {

// One stored tensor of a quantized weight.
struct CodedPart {
  Role role = Role::kValues;
  uint32_t tensor = 0;  // as whoever reads it counts
  DType dtype = DType::kU8;
  Shape shape;
  uint64_t bytes = 0;

  uint64_t Elements() const {
    uint64_t elements = 1;
    for (const uint64_t size : shape) elements *= size;
    return elements;
  }
  friend bool operator==(const CodedPart&, const CodedPart&) = default;
};

// A weight of which a format's parts are stored: what was recognized of it.
struct CodedWeight {
  FormatId format = FormatId::kPlain;
  Shape shape;  // logical: [out, in], or with experts before it
  Variant variant;
  std::vector<CodedPart> parts;
  bool zeros_less_one = false;  // zero points are stored less one: GPTQ's first checkpoint format

  const CodedPart* Find(Role role) const {
    for (const CodedPart& part : parts) {
      if (part.role == role) return &part;
    }
    return nullptr;
  }
  friend bool operator==(const CodedWeight&, const CodedWeight&) = default;
};

// Whether these are the parts of its format, each with one of the format's shapes and types, and all that it must have.
bool HasItsParts(const CodedWeight& weight);

// How scales are found.
enum class ScaleSearch : uint8_t {
  kNone,         // from the largest magnitude of what shares one
  kMultipliers,  // the best of multiples of it
  kSweep,        // the best of all that E4M3 can give, for blocks of NVFP4
};

// What is asked for: a format, and how its scales come about.
struct Encoding {
  FormatId format = FormatId::kPlain;  // kPlain: dequantized, not quantized again
  uint64_t block = 0;                  // inputs that share a scale, where the format has blocks
  bool static_blocks = false;          // of NVFP4: scales in the order of roundings of ModelOpt's static quantizer
  bool four_over_six = false;
  ScaleSearch search = ScaleSearch::kNone;
  double search_start = 0.25;  // of kMultipliers
  double search_stop = 4.0;
  double search_step = 0.1;
  bool cast = false;  // of NVFP4: the powers of two that the weight is stored with become its block scales

  friend bool operator==(const Encoding&, const Encoding&) = default;
};

// A weight that is to be stored in a format. Its tensors are Parts(encoding.format, shape, variant).
struct Target {
  Encoding encoding;
  Shape shape;  // logical; [experts, inputs, outputs] where experts are batched
  Variant variant;

  friend bool operator==(const Target&, const Target&) = default;
};

// Whether the weight is FP4 in blocks of 32 that share a power of two: MXFP4, whoever wrote it, and DeepSeek's experts.
bool IsFp4OfPowers(const CodedWeight& weight);

// Whether NVFP4 can take over such a weight's codes and powers: its blocks lie the same way, and the scales that are
// asked for come from largest magnitudes alone, without a search or another normalization.
bool CanCast(const CodedWeight& weight, const Target& target);

// The variant of a format that is written for a weight of this shape, or why none is.
Result<Variant> WrittenVariant(const Encoding& encoding, const Shape& shape);

}  // namespace quantport
