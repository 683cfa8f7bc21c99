// What the SIMD kernels have in common, compiled once for each target: loading, storing, ends of rows, and exact
// encoding in F32 lanes with the same operations as codes.h.
#if defined(QUANTPORT_QUANTIZE_SIMD_VECTORS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUANTPORT_QUANTIZE_SIMD_VECTORS_INL_H_
#undef QUANTPORT_QUANTIZE_SIMD_VECTORS_INL_H_
#else
#define QUANTPORT_QUANTIZE_SIMD_VECTORS_INL_H_
#endif

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "quantize/kernels.h"

HWY_BEFORE_NAMESPACE();
namespace quantport::quantize {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::ScalableTag<float>;
using DU = hn::RebindToUnsigned<DF>;
using DI = hn::RebindToSigned<DF>;
using D16 = hn::Repartition<uint16_t, DF>;  // twice as many lanes
using DI16 = hn::RebindToSigned<D16>;
using D8 = hn::Repartition<uint8_t, DF>;
using DHalf16 = hn::Rebind<uint16_t, DF>;   // as many lanes
using DQuarter8 = hn::Rebind<uint8_t, DF>;  // as many lanes
using DHalf8 = hn::Rebind<uint8_t, D16>;    // as many lanes as D16
using VF = hn::Vec<DF>;
using VU = hn::Vec<DU>;
using VI = hn::Vec<DI>;
using V16 = hn::Vec<D16>;

constexpr size_t kLanes = hn::MaxLanes(DF());

HWY_INLINE VU Bits(VF value) { return hn::BitCast(DU(), value); }
HWY_INLINE VF Float(VU bits) { return hn::BitCast(DF(), bits); }
HWY_INLINE VU SetU(uint32_t value) { return hn::Set(DU(), value); }
HWY_INLINE VF SetF(float value) { return hn::Set(DF(), value); }
HWY_INLINE V16 Set16(uint16_t value) { return hn::Set(D16(), value); }

// As signed numbers, which every target compares in one instruction; the top bits are clear.
HWY_INLINE auto Less(VU a, VU b) { return hn::Lt(hn::BitCast(DI(), a), hn::BitCast(DI(), b)); }
HWY_INLINE VU Choose(hn::Mask<DI> mask, VU yes, VU no) {
  return hn::BitCast(DU(), hn::IfThenElse(mask, hn::BitCast(DI(), yes), hn::BitCast(DI(), no)));
}

HWY_INLINE VF FromF16Bits(VU half) {
  const VU magnitude = hn::And(half, SetU(0x7FFF));
  const VU sign = hn::ShiftLeft<16>(hn::And(half, SetU(0x8000)));
  const VU subnormal = Bits(hn::Mul(hn::ConvertTo(DF(), hn::BitCast(DI(), magnitude)), SetF(0x1p-24f)));
  const VU shifted = hn::ShiftLeft<13>(magnitude);
  const VU normal = hn::Add(shifted, SetU(112u << 23));
  const VU special = hn::Or(shifted, SetU(0x7F800000));
  const VU finite = Choose(Less(magnitude, SetU(0x400)), subnormal, normal);
  return Float(hn::Or(sign, Choose(Less(SetU(0x7BFF), magnitude), special, finite)));
}

template <ElementType kType>
HWY_INLINE VF LoadAs(const uint8_t* data) {
  if constexpr (kType == ElementType::kF32) {
    return Float(hn::LoadU(DU(), reinterpret_cast<const uint32_t*>(data)));
  } else {
    const VU bits = hn::PromoteTo(DU(), hn::LoadU(DHalf16(), reinterpret_cast<const uint16_t*>(data)));
    return kType == ElementType::kBF16 ? Float(hn::ShiftLeft<16>(bits)) : FromF16Bits(bits);
  }
}

// As ToBf16, with the result in the upper half.
HWY_INLINE VU RoundToBf16(VF value) {
  const VU bits = Bits(value);
  const VU odd = hn::And(hn::ShiftRight<16>(bits), SetU(1));
  const VU rounded = hn::Add(bits, hn::Add(odd, SetU(0x7FFF)));
  const VU quiet = hn::Or(bits, SetU(0x400000));
  const auto nan = Less(SetU(0x7F800000), hn::And(bits, SetU(0x7FFFFFFF)));
  return hn::And(Choose(nan, quiet, rounded), SetU(0xFFFF0000));
}

// As FromF16(ToF16(value)), of a magnitude.
HWY_INLINE VF RoundMagnitudeToF16(VF value) {
  const VU bits = Bits(value);
  const VU odd = hn::And(hn::ShiftRight<13>(bits), SetU(1));
  const VU normal = hn::And(hn::Add(bits, hn::Add(odd, SetU(0xFFF))), SetU(0xFFFFE000));
  const VU subnormal = Bits(hn::Sub(hn::Add(value, SetF(0.5f)), SetF(0.5f)));
  const VU finite = Choose(Less(bits, SetU(0x38800000)), subnormal, normal);
  const VU infinite = Choose(Less(SetU(0x477FEFFF), bits), SetU(0x7F800000), finite);
  return Float(Choose(Less(SetU(0x7F800000), bits), bits, infinite));
}

// As ToF16.
HWY_INLINE VU ToF16Bits(VF value) {
  const VU sign = hn::And(hn::ShiftRight<16>(Bits(value)), SetU(0x8000));
  const VF rounded = RoundMagnitudeToF16(hn::Abs(value));
  const VU bits = Bits(rounded);
  const VU normal = hn::ShiftRight<13>(hn::Sub(bits, SetU(112u << 23)));
  const VU subnormal = hn::Sub(Bits(hn::Add(rounded, SetF(0.5f))), SetU(0x3F000000));
  const VU finite = Choose(Less(bits, SetU(0x38800000)), subnormal, normal);
  const VU infinite = Choose(Less(SetU(0x7F7FFFFF), bits), SetU(0x7C00), finite);
  return hn::Or(sign, Choose(Less(SetU(0x7F800000), bits), SetU(0x7E00), infinite));
}

template <ElementType kType>
HWY_INLINE void StoreAs(VF value, uint8_t* data) {
  if constexpr (kType == ElementType::kF32) {
    hn::StoreU(Bits(value), DU(), reinterpret_cast<uint32_t*>(data));
  } else {
    const VU bits = kType == ElementType::kBF16 ? hn::ShiftRight<16>(RoundToBf16(value)) : ToF16Bits(value);
    hn::StoreU(hn::TruncateTo(DHalf16(), bits), DHalf16(), reinterpret_cast<uint16_t*>(data));
  }
}

// Of magnitudes, as EncodeE4m3.
HWY_INLINE VU EncodeE4m3Magnitude(VF value) {
  const VU bits = Bits(value);
  const VU rebased = hn::Sub(bits, SetU(120u << 23));
  const VU odd = hn::And(hn::ShiftRight<20>(bits), SetU(1));
  const VU normal = hn::ShiftRight<20>(hn::Add(rebased, hn::Add(odd, SetU(0x7FFFF))));
  const VU subnormal = hn::Sub(Bits(hn::Add(value, SetF(0x1p14f))), Bits(SetF(0x1p14f)));
  const VU code = Choose(Less(bits, Bits(SetF(0x1p-6f))), subnormal, normal);
  return Choose(Less(Bits(SetF(464.0f)), bits), SetU(0x7F), code);
}

// As DecodeE4m3.
HWY_INLINE VF DecodeE4m3Codes(VU code) {
  const VU sign = hn::ShiftLeft<24>(hn::And(code, SetU(0x80)));
  const VU magnitude = hn::And(code, SetU(0x7F));
  const VU subnormal = Bits(hn::Mul(hn::ConvertTo(DF(), hn::BitCast(DI(), magnitude)), SetF(0x1p-9f)));
  const VU normal = hn::Add(hn::ShiftLeft<20>(magnitude), SetU(120u << 23));
  const VU finite = Choose(Less(magnitude, SetU(8)), subnormal, normal);
  return Float(hn::Or(sign, Choose(Less(SetU(0x7E), magnitude), SetU(0x7FC00000), finite)));
}

constexpr size_t kCacheLine = 64;

// Asks for `bytes` that a loop will read soon. The processor's own prefetching stops at the end of a small page. In
// GB/s from memory, NVFP4 and FP8: 0 ahead 8.5, 10.1; 1 KiB 8.9, 11.3; 2 KiB 9.4, 11.6; 4 KiB 9.0, 11.7; 8
// KiB 8.3, 11.7.
HWY_INLINE void PrefetchAhead(const uint8_t* data, size_t bytes) {
  constexpr size_t kAhead = 2048;
  for (size_t i = 0; i < bytes; i += kCacheLine) hwy::Prefetch(data + kAhead + i);
}

// The same for what it will write, since a line is read before it is written. FP8 from memory to memory gains 18 %, as
// much as by stores past the cache, which would take the codes from where they are wanted next.
HWY_INLINE void PrefetchOutput(const uint8_t* data, size_t bytes) {
  constexpr size_t kAhead = 512;
  for (size_t i = 0; i < bytes; i += kCacheLine) hwy::Prefetch(data + kAhead + i);
}

// Calls `step(element type)`.
template <typename Step>
HWY_INLINE void WithType(ElementType type, const Step& step) {
  switch (type) {
    case ElementType::kBF16:
      return step(std::integral_constant<ElementType, ElementType::kBF16>());
    case ElementType::kF16:
      return step(std::integral_constant<ElementType, ElementType::kF16>());
    case ElementType::kF32:
      return step(std::integral_constant<ElementType, ElementType::kF32>());
  }
}

// Calls `step(input, output)` for vectors of kLanes elements; the last one, where the size leaves a rest, on copies.
template <typename Step>
HWY_INLINE void ForVectors(const uint8_t* input, size_t input_bytes, uint8_t* output, size_t output_bytes, size_t size,
                           const Step& step) {
  size_t i = 0;
  for (; i + kLanes <= size; i += kLanes) step(input + i * input_bytes, output + i * output_bytes);
  if (i == size) return;
  HWY_ALIGN uint8_t in[kLanes * sizeof(float)] = {};
  HWY_ALIGN uint8_t out[kLanes * sizeof(float)];
  std::memcpy(in, input + i * input_bytes, (size - i) * input_bytes);
  step(in, out);
  std::memcpy(output + i * output_bytes, out, (size - i) * output_bytes);
}

// Calls `group(first, count, number)` for each group of a row.
template <typename Group>
HWY_INLINE void ForGroups(size_t size, size_t group, const Group& function) {
  for (size_t first = 0, number = 0; first < size; first += group, ++number) {
    function(first, std::min(group, size - first), number);
  }
}

// |even| and |odd| elements of two BF16 a lane, as F32.
HWY_INLINE VF EvenElements(V16 pairs) { return Float(hn::ShiftLeft<16>(hn::BitCast(DU(), pairs))); }
HWY_INLINE VF OddElements(V16 pairs) { return Float(hn::And(hn::BitCast(DU(), pairs), SetU(0xFFFF0000))); }
// The low halves of both, as pairs again.
HWY_INLINE V16 JoinLow(VU even, VU odd) {
  return hn::OddEven(hn::BitCast(D16(), hn::ShiftLeft<16>(odd)), hn::BitCast(D16(), even));
}
// The high halves of both.
HWY_INLINE V16 JoinHigh(VU even, VU odd) {
  return hn::OddEven(hn::BitCast(D16(), odd), hn::BitCast(D16(), hn::ShiftRight<16>(even)));
}

// Lanes of `divisor` in whose neighbourhood x / divisor may be on one side of a decision and x * (1 / divisor) on the
// other, for some x that BF16 can hold. A decision is at `boundary` times a power of two. Both quotients are within
// 2^-22 of the exact one, so they agree unless divisor * boundary lies that near to a number of 8 bits; F32 has 2^16
// steps between those, and we look 8 around, twice what is needed.
HWY_INLINE hn::Mask<DI> NearBoundary(VF divisor, float boundary) {
  const VU product = Bits(hn::Mul(divisor, SetF(boundary)));
  return Less(hn::And(hn::Add(product, SetU(8)), SetU(0xFFFF)), SetU(16));
}

}  // namespace HWY_NAMESPACE
}  // namespace quantport::quantize
HWY_AFTER_NAMESPACE();

#endif
