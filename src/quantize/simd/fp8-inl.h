// FP8 with given scales.
#if defined(QUANTPORT_QUANTIZE_SIMD_FP8_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUANTPORT_QUANTIZE_SIMD_FP8_INL_H_
#undef QUANTPORT_QUANTIZE_SIMD_FP8_INL_H_
#else
#define QUANTPORT_QUANTIZE_SIMD_FP8_INL_H_
#endif

#include "quantize/simd/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quantport::quantize {
namespace HWY_NAMESPACE {

// True division: for every type and every scale.
template <ElementType kType, bool kRoundQuotient>
HWY_INLINE void DivideToFp8(const uint8_t* data, size_t size, float scale, uint8_t* codes) {
  const VF divisor = SetF(scale);
  ForVectors(data, ElementBytes(kType), codes, 1, size, [&](const uint8_t* in, uint8_t* out) HWY_ATTR {
    const VF x = LoadAs<kType>(in);
    VF quotient = hn::Abs(hn::Div(x, divisor));
    if constexpr (kRoundQuotient && kType == ElementType::kBF16) quotient = Float(RoundToBf16(quotient));
    if constexpr (kRoundQuotient && kType == ElementType::kF16) quotient = RoundMagnitudeToF16(quotient);
    const VU sign = hn::And(hn::ShiftRight<24>(Bits(x)), SetU(0x80));
    hn::StoreU(hn::TruncateTo(DQuarter8(), hn::Or(EncodeE4m3Magnitude(quotient), sign)), DQuarter8(), out);
  });
}

// Where a multiplication may stand for the division, for some scales at once.
struct Reciprocals {
  static constexpr size_t kMost = 64;
  HWY_ALIGN float value[kMost];
  HWY_ALIGN uint32_t safe[kMost];
};

// A code of FP8 changes where the quotient passes a number of 5 bits, 1 + k / 16 times a power of two (midpoints have
// 5, and so do those of subnormals). If the quotient is rounded to BF16 first, which keeps 8, it changes half a step of
// BF16 before or after.
template <bool kRoundQuotient>
HWY_INLINE void FindReciprocals(const float* scales, size_t count, Reciprocals* reciprocals) {
  for (size_t i = 0; i < count; i += kLanes) {
    HWY_ALIGN float padded[kLanes];
    std::fill(padded, padded + kLanes, 1.0f);
    std::memcpy(padded, scales + i, std::min(kLanes, count - i) * sizeof(float));
    const VF scale = hn::Load(DF(), padded);
    // Far from where anything overflows or becomes subnormal.
    auto unsafe = hn::Not(hn::And(Less(Bits(SetF(0x1p-100f)), Bits(scale)), Less(Bits(scale), Bits(SetF(0x1p100f)))));
    for (int k = 0; k < 16; ++k) {
      const float boundary = 1.0f + static_cast<float>(k) / 16.0f;
      if constexpr (kRoundQuotient) {
        unsafe = hn::Or(unsafe, NearBoundary(scale, boundary - (k == 0 ? 0x1p-9f : 0x1p-8f)));
        unsafe = hn::Or(unsafe, NearBoundary(scale, boundary + 0x1p-8f));
      } else {
        unsafe = hn::Or(unsafe, NearBoundary(scale, boundary));
      }
    }
    hn::Store(hn::Div(SetF(1.0f), scale), DF(), reciprocals->value + i);
    hn::Store(Choose(unsafe, hn::Zero(DU()), SetU(1)), DU(), reciprocals->safe + i);
  }
}

// BF16 times a reciprocal that is safe: no quotient is near a decision, so no tie needs care where one would be.
template <bool kRoundQuotient>
HWY_INLINE size_t MultiplyToFp8(const uint8_t* data, size_t size, float reciprocal, uint8_t* codes) {
  const D16 d;
  const VF factor = SetF(reciprocal);
  const V16 smallest_normal = Set16(0x3C80);  // 2^-6 in BF16
  const V16 one = Set16(1);
  const auto* elements = reinterpret_cast<const uint16_t*>(data);
  size_t i = 0;
  for (; i + 2 * kLanes <= size; i += 2 * kLanes) {
    PrefetchAhead(data + 2 * i, 4 * kLanes);
    PrefetchOutput(codes + i, 2 * kLanes);
    const V16 x = hn::LoadU(d, elements + i);
    const V16 magnitude = hn::And(x, Set16(0x7FFF));
    VU even = Bits(hn::Mul(EvenElements(magnitude), factor));
    VU odd = Bits(hn::Mul(OddElements(magnitude), factor));
    if constexpr (kRoundQuotient) {
      even = hn::Add(even, SetU(0x8000));
      odd = hn::Add(odd, SetU(0x8000));
    }
    const V16 quotient = JoinHigh(even, odd);
    const V16 rebased = hn::SaturatedSub(quotient, Set16(120 << 7));
    V16 code;
    if constexpr (kRoundQuotient) {
      const V16 tie_to_even = hn::And(hn::ShiftRight<4>(rebased), one);
      code = hn::ShiftRight<4>(hn::Add(hn::Add(rebased, Set16(7)), tie_to_even));
    } else {
      code = hn::ShiftRight<4>(hn::Add(rebased, Set16(8)));
    }
    code = hn::Min(code, Set16(0x7F));
    // Zero wraps around to the largest.
    const auto subnormal = hn::Lt(hn::Sub(quotient, one), Set16(0x3C7F));
    if (HWY_UNLIKELY(!hn::AllFalse(d, subnormal))) {
      if constexpr (kRoundQuotient) {
        even = hn::And(even, SetU(0xFFFF0000));
        odd = hn::And(odd, SetU(0xFFFF0000));
      }
      // 2^14 has a step of 2^-9, and its lower half is zero.
      const VU even_code = Bits(hn::Add(Float(even), SetF(0x1p14f)));
      const VU odd_code = Bits(hn::Add(Float(odd), SetF(0x1p14f)));
      code = hn::IfThenElse(hn::Lt(quotient, smallest_normal), JoinLow(even_code, odd_code), code);
    }
    const V16 sign = hn::ShiftRight<8>(hn::AndNot(Set16(0x7FFF), x));
    hn::StoreU(hn::DemoteTo(DHalf8(), hn::BitCast(DI16(), hn::Or(code, sign))), DHalf8(), codes + i);
  }
  return i;
}

template <bool kRoundQuotient>
HWY_INLINE void Bf16ToFp8(Row row, const float* scales, size_t group, uint8_t* codes) {
  Reciprocals reciprocals;
  ForGroups(row.size, group, [&](size_t first, size_t count, size_t number) HWY_ATTR {
    const size_t slot = number % Reciprocals::kMost;
    if (slot == 0) {
      const size_t left = (row.size - first - 1) / group + 1;
      FindReciprocals<kRoundQuotient>(scales + number, std::min(left, Reciprocals::kMost), &reciprocals);
    }
    const uint8_t* data = row.data + 2 * first;
    size_t done = 0;
    if (reciprocals.safe[slot] != 0) {
      done = MultiplyToFp8<kRoundQuotient>(data, count, reciprocals.value[slot], codes + first);
    }
    DivideToFp8<ElementType::kBF16, kRoundQuotient>(data + 2 * done, count - done, scales[number],
                                                    codes + first + done);
  });
}

inline void Fp8(Row row, const float* scales, size_t group, bool round_quotient, uint8_t* codes) {
  if (row.type == ElementType::kBF16) {
    return round_quotient ? Bf16ToFp8<true>(row, scales, group, codes) : Bf16ToFp8<false>(row, scales, group, codes);
  }
  WithType(row.type, [&](auto type) HWY_ATTR {
    ForGroups(row.size, group, [&](size_t first, size_t count, size_t number) HWY_ATTR {
      const uint8_t* data = row.data + first * ElementBytes(type.value);
      if (round_quotient) {
        DivideToFp8<type.value, true>(data, count, scales[number], codes + first);
      } else {
        DivideToFp8<type.value, false>(data, count, scales[number], codes + first);
      }
    });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace quantport::quantize
HWY_AFTER_NAMESPACE();

#endif
