// From codes back to elements.
#if defined(QUANTPORT_QUANTIZE_SIMD_DEQUANTIZE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUANTPORT_QUANTIZE_SIMD_DEQUANTIZE_INL_H_
#undef QUANTPORT_QUANTIZE_SIMD_DEQUANTIZE_INL_H_
#else
#define QUANTPORT_QUANTIZE_SIMD_DEQUANTIZE_INL_H_
#endif

#include "quantize/codes.h"
#include "quantize/simd/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quantport::quantize {
namespace HWY_NAMESPACE {

HWY_INLINE VU LoadCodes(const uint8_t* codes) { return hn::PromoteTo(DU(), hn::LoadU(DQuarter8(), codes)); }

// The nibbles of kLanes / 2 bytes, low ones first.
HWY_INLINE VU LoadNibbles(const uint8_t* codes) {
  using DPairs = hn::CappedTag<uint16_t, kLanes / 2>;
  const auto pairs = hn::PromoteTo(DPairs(), hn::LoadU(hn::Rebind<uint8_t, DPairs>(), codes));
  const auto spread = hn::And(hn::Or(pairs, hn::ShiftLeft<4>(pairs)), hn::Set(DPairs(), 0x0F0F));
  return hn::PromoteTo(DU(), hn::BitCast(DQuarter8(), spread));
}

HWY_INLINE VF DecodeInt8Codes(VU code) {
  return hn::ConvertTo(DF(), hn::ShiftRight<24>(hn::BitCast(DI(), hn::ShiftLeft<24>(code))));
}

// Nibbles of INT4, out of bytes.
HWY_INLINE VF DecodeLowNibble(VU code) {
  return hn::ConvertTo(DF(), hn::ShiftRight<28>(hn::BitCast(DI(), hn::ShiftLeft<28>(code))));
}
HWY_INLINE VF DecodeHighNibble(VU code) {
  return hn::ConvertTo(DF(), hn::ShiftRight<28>(hn::BitCast(DI(), hn::ShiftLeft<24>(code))));
}

constexpr auto kE2m1WithoutMinusZero = [] {
  auto values = kE2m1Values;
  values[8] = 0.0f;
  return values;
}();

// E2M1, with a sign of zero only where `kSignedZero`.
template <bool kSignedZero>
HWY_INLINE VF DecodeE2m1Codes(VU code) {
  // As many numbers as a vector has lanes.
  const auto look_up = [](const float* table, VU number) HWY_ATTR {
    return hn::TableLookupLanes(hn::LoadU(DF(), table), hn::IndicesFromVec(DF(), hn::BitCast(DI(), number)));
  };
  if constexpr (kLanes == 16) return look_up(kSignedZero ? kE2m1Values.data() : kE2m1WithoutMinusZero.data(), code);
  if constexpr (kLanes == 8) {
    const VF found = look_up(kE2m1Values.data(), hn::And(code, SetU(7)));
    const VF sign = Float(hn::ShiftLeft<28>(hn::And(code, SetU(8))));
    return hn::Or(found, kSignedZero ? sign : hn::IfThenElseZero(hn::Gt(found, hn::Zero(DF())), sign));
  }
  const VU magnitude = hn::And(code, SetU(7));
  const VU normal = hn::Add(hn::ShiftLeft<22>(magnitude), SetU(126u << 23));
  const VU half = Choose(Less(hn::Zero(DU()), magnitude), Bits(SetF(0.5f)), hn::Zero(DU()));
  const VU value = Choose(Less(magnitude, SetU(2)), half, normal);
  const VU sign = hn::ShiftLeft<28>(hn::And(code, SetU(8)));
  if constexpr (kSignedZero) return Float(hn::Or(value, sign));
  return Float(hn::Or(value, Choose(Less(hn::Zero(DU()), magnitude), sign, hn::Zero(DU()))));
}

// Calls `decode(codes)` for vectors of codes of `kBits`, and stores the product with `scale`.
template <ElementType kType, int kBits, typename Decode>
HWY_INLINE void ScaleRun(const uint8_t* codes, size_t size, float scale, const Decode& decode, uint8_t* output) {
  const VF factor = SetF(scale);
  constexpr size_t kPerByte = 8 / kBits;
  const size_t whole = size / kLanes * kLanes;
  const auto convert = [&](const uint8_t* in, uint8_t* out) HWY_ATTR {
    StoreAs<kType>(hn::Mul(decode(kBits == 8 ? LoadCodes(in) : LoadNibbles(in)), factor), out);
  };
  for (size_t i = 0; i < whole; i += kLanes) convert(codes + i / kPerByte, output + i * ElementBytes(kType));
  if (whole == size) return;
  HWY_ALIGN uint8_t in[kLanes] = {};
  HWY_ALIGN uint8_t out[kLanes * sizeof(float)];
  std::memcpy(in, codes + whole / kPerByte, (size - whole + kPerByte - 1) / kPerByte);
  convert(in, out);
  std::memcpy(output + whole * ElementBytes(kType), out, (size - whole) * ElementBytes(kType));
}

inline float RoundScale(float scale, ScaleRounding rounding, ElementType type) {
  return rounding == ScaleRounding::kToOutput ? RoundTo(type, scale) : scale;
}

inline void FromFp8(const uint8_t* codes, size_t size, const float* scales, size_t group, ScaleRounding rounding,
                    Output output) {
  WithType(output.type, [&](auto type) HWY_ATTR {
    ForGroups(size, group, [&](size_t first, size_t count, size_t number) HWY_ATTR {
      ScaleRun<type.value, 8>(
          codes + first, count, RoundScale(scales[number], rounding, type.value),
          [](VU code) HWY_ATTR { return DecodeE4m3Codes(code); }, output.At(first).data);
    });
  });
}

inline void FromMxfp8(const uint8_t* codes, size_t size, const uint8_t* scales, Output output) {
  WithType(output.type, [&](auto type) HWY_ATTR {
    ForGroups(size, 32, [&](size_t first, size_t count, size_t number) HWY_ATTR {
      ScaleRun<type.value, 8>(
          codes + first, count, DecodeE8m0(scales[number]), [](VU code) HWY_ATTR { return DecodeE4m3Codes(code); },
          output.At(first).data);
    });
  });
}

inline void FromMxfp4(const uint8_t* codes, size_t size, const uint8_t* scales, Output output) {
  WithType(output.type, [&](auto type) HWY_ATTR {
    ForGroups(size, 32, [&](size_t first, size_t count, size_t number) HWY_ATTR {
      ScaleRun<type.value, 4>(
          codes + first / 2, count, DecodeE8m0(scales[number]),
          [](VU code) HWY_ATTR { return DecodeE2m1Codes<true>(code); }, output.At(first).data);
    });
  });
}

inline void FromNvfp4(const uint8_t* codes, size_t size, float global_scale, size_t block, const uint8_t* scales,
                      Output output) {
  WithType(output.type, [&](auto type) HWY_ATTR {
    ForGroups(size, block, [&](size_t first, size_t count, size_t number) HWY_ATTR {
      ScaleRun<type.value, 4>(
          codes + first / 2, count, DecodeE4m3(scales[number]) * global_scale,
          [](VU code) HWY_ATTR { return DecodeE2m1Codes<false>(code); }, output.At(first).data);
    });
  });
}

inline void FromInt8(const uint8_t* codes, size_t size, const float* scales, size_t group, ScaleRounding rounding,
                     Output output) {
  WithType(output.type, [&](auto type) HWY_ATTR {
    ForGroups(size, group, [&](size_t first, size_t count, size_t number) HWY_ATTR {
      ScaleRun<type.value, 8>(
          codes + first, count, RoundScale(scales[number], rounding, type.value),
          [](VU code) HWY_ATTR { return DecodeInt8Codes(code); }, output.At(first).data);
    });
  });
}

inline void FromInt4(const uint8_t* codes, size_t size, const float* even_scales, const float* odd_scales, size_t group,
                     ScaleRounding rounding, Output even, Output odd) {
  const auto decode_low = [](VU code) HWY_ATTR { return DecodeLowNibble(code); };
  const auto decode_high = [](VU code) HWY_ATTR { return DecodeHighNibble(code); };
  WithType(even.type, [&](auto type) HWY_ATTR {
    ForGroups(size, group, [&](size_t first, size_t count, size_t number) HWY_ATTR {
      const float low = RoundScale(even_scales[number], rounding, type.value);
      const float high = RoundScale(odd_scales[number], rounding, type.value);
      ScaleRun<type.value, 8>(codes + first, count, low, decode_low, even.At(first).data);
      ScaleRun<type.value, 8>(codes + first, count, high, decode_high, odd.At(first).data);
    });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace quantport::quantize
HWY_AFTER_NAMESPACE();

#endif
