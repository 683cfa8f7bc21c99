// What became of a row, dequantized in registers and held against it.
#if defined(QUANTPORT_QUANTIZE_SIMD_ERROR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUANTPORT_QUANTIZE_SIMD_ERROR_INL_H_
#undef QUANTPORT_QUANTIZE_SIMD_ERROR_INL_H_
#else
#define QUANTPORT_QUANTIZE_SIMD_ERROR_INL_H_
#endif

#include "quantize/codes.h"
#include "quantize/simd/dequantize-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quantport::quantize {
namespace HWY_NAMESPACE {

using D64 = hn::Repartition<double, DF>;
using DHalfF = hn::Rebind<float, D64>;
using V64 = hn::Vec<D64>;

// ErrorParts in vectors. Sixteen elements are one step, so that parts do not depend on the number of lanes.
struct ErrorLanes {
  static constexpr size_t kStep = ErrorParts::kParts;
  static constexpr size_t kVectors = kStep / kLanes;

  V64 squared_error[2 * kVectors];  // in registers, once the loops are unrolled
  V64 squares[2 * kVectors];
  VF max_error;
  size_t clipped;
};

HWY_INLINE ErrorLanes NoErrors() {
  ErrorLanes lanes;
#pragma GCC unroll 8
  for (size_t i = 0; i < 2 * ErrorLanes::kVectors; ++i) lanes.squared_error[i] = lanes.squares[i] = hn::Zero(D64());
  lanes.max_error = hn::Zero(DF());
  lanes.clipped = 0;
  return lanes;
}

HWY_INLINE V64 AddSquare(hn::Vec<DHalfF> value, V64 sum) {
  const V64 wide = hn::PromoteTo(D64(), value);
  return hn::MulAdd(wide, wide, sum);
}

// Vector `i` of a step. With `kFinite`, all elements are taken to be, and if one is not, the sums are not either.
template <bool kFinite>
HWY_INLINE void AddError(VF original, VF dequantized, VF limit, size_t i, ErrorLanes* lanes) {
  const DHalfF half;
  VF error = hn::Abs(hn::Sub(original, dequantized));
  if constexpr (!kFinite) {
    // NaN compares false; where either number is not finite, neither is the error.
    const auto finite = hn::Lt(error, SetF(HUGE_VALF));
    error = hn::IfThenElseZero(finite, error);
    original = hn::IfThenElseZero(finite, original);
  }
  lanes->max_error = hn::Max(lanes->max_error, error);
  lanes->clipped += hn::CountTrue(DF(), hn::Gt(hn::Abs(original), limit));
  lanes->squared_error[2 * i] = AddSquare(hn::LowerHalf(half, error), lanes->squared_error[2 * i]);
  lanes->squared_error[2 * i + 1] = AddSquare(hn::UpperHalf(half, error), lanes->squared_error[2 * i + 1]);
  lanes->squares[2 * i] = AddSquare(hn::LowerHalf(half, original), lanes->squares[2 * i]);
  lanes->squares[2 * i + 1] = AddSquare(hn::UpperHalf(half, original), lanes->squares[2 * i + 1]);
}

HWY_INLINE void MoveErrors(const ErrorLanes& lanes, ErrorParts* parts) {
  constexpr size_t kWide = kLanes / 2;
  for (size_t i = 0; i < 2 * ErrorLanes::kVectors; ++i) {
    hn::StoreU(lanes.squared_error[i], D64(), parts->squared_error.data() + i * kWide);
    hn::StoreU(lanes.squares[i], D64(), parts->squares.data() + i * kWide);
  }
  parts->max_error = hn::GetLane(hn::MaxOfLanes(DF(), lanes.max_error));
  parts->clipped = lanes.clipped;
}

// A group with one scale, whose codes of `kBits` `decode` turns into numbers.
template <bool kFinite, ElementType kType, int kBits, typename Decode>
HWY_INLINE void AddErrorsOfGroup(const uint8_t* data, const uint8_t* codes, size_t size, float scale, float largest,
                                 const Decode& decode, ErrorLanes* lanes) {
  constexpr size_t kStep = ErrorLanes::kStep, kPerByte = 8 / kBits, kBytes = ElementBytes(kType);
  const VF factor = SetF(scale), limit = SetF(ErrorLimit(largest, scale));
  const auto step = [&](const uint8_t* elements, const uint8_t* in) HWY_ATTR {
#pragma GCC unroll 4
    for (size_t i = 0; i < ErrorLanes::kVectors; ++i) {
      const VU code = kBits == 8 ? LoadCodes(in + i * kLanes) : LoadNibbles(in + i * kLanes / 2);
      AddError<kFinite>(LoadAs<kType>(elements + i * kLanes * kBytes), hn::Mul(decode(code), factor), limit, i, lanes);
    }
  };
  size_t i = 0;
  for (; i + kStep <= size; i += kStep) {
    PrefetchAhead(data + i * kBytes, kStep * kBytes);
    PrefetchAhead(codes + i / kPerByte, kStep / kPerByte);
    step(data + i * kBytes, codes + i / kPerByte);
  }
  if (i == size) return;
  // Zeros against zeros add nothing.
  HWY_ALIGN uint8_t elements[kStep * sizeof(float)] = {};
  HWY_ALIGN uint8_t in[kStep] = {};
  std::memcpy(elements, data + i * kBytes, (size - i) * kBytes);
  std::memcpy(in, codes + i / kPerByte, (size - i + kPerByte - 1) / kPerByte);
  step(elements, in);
}

// `scale(number)` is that of a group.
template <bool kFinite, ElementType kType, int kBits, typename Scale, typename Decode>
HWY_INLINE void AddErrorsOfRow(const uint8_t* data, const uint8_t* codes, size_t size, size_t group, float largest,
                               const Scale& scale, const Decode& decode, ErrorLanes* lanes) {
  ForGroups(size, group, [&](size_t first, size_t count, size_t number) HWY_ATTR {
    AddErrorsOfGroup<kFinite, kType, kBits>(data + first * ElementBytes(kType), codes + first * kBits / 8, count,
                                            scale(number), largest, decode, lanes);
  });
}

// Calls `add(finite, type, lanes)`, where all is finite once.
template <typename Add>
HWY_INLINE ErrorSums SumErrors(ElementType element_type, size_t elements, const Add& add) {
  ErrorParts parts;
  WithType(element_type, [&](auto type) HWY_ATTR {
    ErrorLanes lanes = NoErrors();
    add(std::true_type(), type, &lanes);
    MoveErrors(lanes, &parts);
  });
  ErrorSums sums = parts.Sum(elements);
  if (HWY_LIKELY(std::isfinite(sums.squared_error))) return sums;
  WithType(element_type, [&](auto type) HWY_ATTR {
    ErrorLanes lanes = NoErrors();
    add(std::false_type(), type, &lanes);
    MoveErrors(lanes, &parts);
  });
  return parts.Sum(elements);
}

template <int kBits, typename Scale, typename Decode>
HWY_INLINE ErrorSums RowErrors(Row row, const uint8_t* codes, size_t group, float largest, const Scale& scale,
                               const Decode& decode) {
  return SumErrors(row.type, row.size, [&](auto finite, auto type, ErrorLanes* lanes) HWY_ATTR {
    AddErrorsOfRow<finite.value, type.value, kBits>(row.data, codes, row.size, group, largest, scale, decode, lanes);
  });
}

inline ErrorSums Fp8Error(Row row, const uint8_t* codes, const float* scales, size_t group) {
  return RowErrors<8>(
      row, codes, group, kE4m3Max, [&](size_t number) { return scales[number]; },
      [](VU code) HWY_ATTR { return DecodeE4m3Codes(code); });
}

inline ErrorSums Mxfp8Error(Row row, const uint8_t* codes, const uint8_t* scales) {
  return RowErrors<8>(
      row, codes, 32, kE4m3Max, [&](size_t number) { return DecodeE8m0(scales[number]); },
      [](VU code) HWY_ATTR { return DecodeE4m3Codes(code); });
}

inline ErrorSums Mxfp4Error(Row row, const uint8_t* codes, const uint8_t* scales) {
  return RowErrors<4>(
      row, codes, 32, kE2m1Max, [&](size_t number) { return DecodeE8m0(scales[number]); },
      [](VU code) HWY_ATTR { return DecodeE2m1Codes<true>(code); });
}

inline ErrorSums Nvfp4Error(Row row, const uint8_t* codes, float global_scale, size_t block, const uint8_t* scales) {
  return RowErrors<4>(
      row, codes, block, kE2m1Max, [&](size_t number) { return kE4m3Values[scales[number]] * global_scale; },
      [](VU code) HWY_ATTR { return DecodeE2m1Codes<false>(code); });
}

inline ErrorSums Int8Error(Row row, const uint8_t* codes, const float* scales, size_t group) {
  return RowErrors<8>(
      row, codes, group, 127.0f, [&](size_t number) { return scales[number]; },
      [](VU code) HWY_ATTR { return DecodeInt8Codes(code); });
}

inline ErrorSums Int4Error(Row even, Row odd, const uint8_t* codes, const float* even_scales, const float* odd_scales,
                           size_t group) {
  return SumErrors(even.type, even.size + odd.size, [&](auto finite, auto type, ErrorLanes* lanes) HWY_ATTR {
    AddErrorsOfRow<finite.value, type.value, 8>(
        even.data, codes, even.size, group, 7.0f, [&](size_t number) { return even_scales[number]; },
        [](VU code) HWY_ATTR { return DecodeLowNibble(code); }, lanes);
    AddErrorsOfRow<finite.value, type.value, 8>(
        odd.data, codes, odd.size, group, 7.0f, [&](size_t number) { return odd_scales[number]; },
        [](VU code) HWY_ATTR { return DecodeHighNibble(code); }, lanes);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace quantport::quantize
HWY_AFTER_NAMESPACE();

#endif
