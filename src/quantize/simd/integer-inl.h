// INT8 and INT4.
#if defined(QUANTPORT_QUANTIZE_SIMD_INTEGER_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUANTPORT_QUANTIZE_SIMD_INTEGER_INL_H_
#undef QUANTPORT_QUANTIZE_SIMD_INTEGER_INL_H_
#else
#define QUANTPORT_QUANTIZE_SIMD_INTEGER_INL_H_
#endif

#include "quantize/simd/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quantport::quantize {
namespace HWY_NAMESPACE {

struct Divisor {
  VF value;
  VF reciprocal;
};

HWY_INLINE Divisor MakeDivisor(float scale) { return {SetF(scale), hn::Div(SetF(1.0f), SetF(scale))}; }

// The rounded quotient of a BF16 by an F32 that is far from F32's limits: Markstein's correction of a multiplication.
// Tried for all 2^7 fractions of BF16 by all 2^23 of F32 (quantize_exhaustive_test.cc), which is every case
// but for the exponents.
HWY_INLINE VF DivideBf16(VF x, const Divisor& divisor) {
#if HWY_NATIVE_FMA
  const VF quotient = hn::Mul(x, divisor.reciprocal);
  return hn::MulAdd(hn::NegMulAdd(quotient, divisor.value, x), divisor.reciprocal, quotient);
#else
  return hn::Div(x, divisor.value);
#endif
}

// To nearest even within bounds; NaN is 0.
HWY_INLINE VI RoundWithinLanes(VF quotient, float smallest, float largest) {
  const VF number = hn::IfThenElseZero(hn::Eq(quotient, quotient), quotient);
  return hn::NearestInt(hn::Min(hn::Max(number, SetF(smallest)), SetF(largest)));
}

template <ElementType kType>
HWY_INLINE void DivideToInt8(const uint8_t* data, size_t size, float scale, uint8_t* codes) {
  ForVectors(data, ElementBytes(kType), codes, 1, size, [&](const uint8_t* in, uint8_t* out) HWY_ATTR {
    const VI code = RoundWithinLanes(hn::Div(LoadAs<kType>(in), SetF(scale)), -128.0f, 127.0f);
    hn::StoreU(hn::TruncateTo(DQuarter8(), hn::And(hn::BitCast(DU(), code), SetU(0xFF))), DQuarter8(), out);
  });
}

HWY_INLINE bool IsOrdinaryDivisor(float scale) { return scale > 0x1p-60f && scale < 0x1p60f; }

HWY_INLINE V16 RoundPairs(V16 x, const Divisor& divisor, float smallest, float largest) {
  const auto round = [&](VF element) HWY_ATTR {
    const VF clamped = hn::Min(hn::Max(DivideBf16(element, divisor), SetF(smallest)), SetF(largest));
    return hn::BitCast(DU(), hn::NearestInt(clamped));
  };
  return JoinLow(round(EvenElements(x)), round(OddElements(x)));
}

// Elements from 2^60 on, NaN among them, are left to the division.
HWY_INLINE bool AreOrdinary(V16 largest) { return hn::AllTrue(D16(), hn::Lt(largest, Set16((127 + 60) << 7))); }

// These convert whole vectors and return their number of elements: none where one was out of the ordinary.
HWY_INLINE size_t MultiplyToInt8(const uint8_t* data, size_t size, float scale, uint8_t* codes) {
  const D16 d;
  const Divisor divisor = MakeDivisor(scale);
  const auto* elements = reinterpret_cast<const uint16_t*>(data);
  size_t i = 0;
  V16 largest = hn::Zero(d);
  for (; i + 2 * kLanes <= size; i += 2 * kLanes) {
    PrefetchAhead(data + 2 * i, 4 * kLanes);
    PrefetchOutput(codes + i, 2 * kLanes);
    const V16 x = hn::LoadU(d, elements + i);
    largest = hn::Max(largest, hn::And(x, Set16(0x7FFF)));
    const V16 code = hn::And(RoundPairs(x, divisor, -128.0f, 127.0f), Set16(0xFF));
    hn::StoreU(hn::DemoteTo(DHalf8(), hn::BitCast(DI16(), code)), DHalf8(), codes + i);
  }
  return AreOrdinary(largest) ? i : 0;
}

inline void Int8(Row row, const float* scales, size_t group, uint8_t* codes) {
  WithType(row.type, [&](auto type) HWY_ATTR {
    ForGroups(row.size, group, [&](size_t first, size_t count, size_t number) HWY_ATTR {
      const uint8_t* data = row.data + first * ElementBytes(type.value);
      size_t done = 0;
      if constexpr (type.value == ElementType::kBF16) {
        if (IsOrdinaryDivisor(scales[number])) done = MultiplyToInt8(data, count, scales[number], codes + first);
      }
      DivideToInt8<type.value>(data + done * ElementBytes(type.value), count - done, scales[number],
                               codes + first + done);
    });
  });
}

template <ElementType kType>
HWY_INLINE void DivideToInt4(const uint8_t* even, const uint8_t* odd, size_t size, float even_scale, float odd_scale,
                             uint8_t* codes) {
  constexpr size_t kPart = 512;
  HWY_ALIGN uint8_t low[kPart], high[kPart];
  for (size_t i = 0; i < size; i += kPart) {
    const size_t count = std::min(kPart, size - i);
    const auto round = [&](const uint8_t* data, float scale, uint8_t* out) HWY_ATTR {
      ForVectors(data + i * ElementBytes(kType), ElementBytes(kType), out, 1, count,
                 [&](const uint8_t* in, uint8_t* nibbles) HWY_ATTR {
                   const VI code = RoundWithinLanes(hn::Div(LoadAs<kType>(in), SetF(scale)), -8.0f, 7.0f);
                   hn::StoreU(hn::TruncateTo(DQuarter8(), hn::And(hn::BitCast(DU(), code), SetU(15))), DQuarter8(),
                              nibbles);
                 });
    };
    round(even, even_scale, low);
    round(odd, odd_scale, high);
    for (size_t k = 0; k < count; ++k) codes[i + k] = static_cast<uint8_t>(low[k] | high[k] << 4);
  }
}

HWY_INLINE size_t MultiplyToInt4(const uint8_t* even, const uint8_t* odd, size_t size, float even_scale,
                                 float odd_scale, uint8_t* codes) {
  const D16 d;
  const Divisor even_divisor = MakeDivisor(even_scale), odd_divisor = MakeDivisor(odd_scale);
  const auto* even_elements = reinterpret_cast<const uint16_t*>(even);
  const auto* odd_elements = reinterpret_cast<const uint16_t*>(odd);
  size_t i = 0;
  V16 largest = hn::Zero(d);
  for (; i + 2 * kLanes <= size; i += 2 * kLanes) {
    PrefetchAhead(even + 2 * i, 4 * kLanes);
    PrefetchAhead(odd + 2 * i, 4 * kLanes);
    PrefetchOutput(codes + i, 2 * kLanes);
    const V16 x = hn::LoadU(d, even_elements + i);
    const V16 y = hn::LoadU(d, odd_elements + i);
    largest = hn::Max(largest, hn::Max(hn::And(x, Set16(0x7FFF)), hn::And(y, Set16(0x7FFF))));
    const V16 low = hn::And(RoundPairs(x, even_divisor, -8.0f, 7.0f), Set16(15));
    const V16 high = hn::And(RoundPairs(y, odd_divisor, -8.0f, 7.0f), Set16(15));
    const V16 code = hn::Or(low, hn::ShiftLeft<4>(high));
    hn::StoreU(hn::DemoteTo(DHalf8(), hn::BitCast(DI16(), code)), DHalf8(), codes + i);
  }
  return AreOrdinary(largest) ? i : 0;
}

inline void Int4(Row even, Row odd, const float* even_scales, const float* odd_scales, size_t group, uint8_t* codes) {
  WithType(even.type, [&](auto type) HWY_ATTR {
    ForGroups(even.size, group, [&](size_t first, size_t count, size_t number) HWY_ATTR {
      const size_t bytes = ElementBytes(type.value);
      const float even_scale = even_scales[number], odd_scale = odd_scales[number];
      size_t done = 0;
      if constexpr (type.value == ElementType::kBF16) {
        if (IsOrdinaryDivisor(even_scale) && IsOrdinaryDivisor(odd_scale)) {
          done = MultiplyToInt4(even.data + first * bytes, odd.data + first * bytes, count, even_scale, odd_scale,
                                codes + first);
        }
      }
      const size_t at = (first + done) * bytes;
      DivideToInt4<type.value>(even.data + at, odd.data + at, count - done, even_scale, odd_scale,
                               codes + first + done);
    });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace quantport::quantize
HWY_AFTER_NAMESPACE();

#endif
