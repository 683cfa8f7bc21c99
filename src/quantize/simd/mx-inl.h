// MXFP8 and MXFP4. A power of two for a scale makes both work on the 16 bits of BF16 alone: scaling is a subtraction.
#if defined(QUANTPORT_QUANTIZE_SIMD_MX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUANTPORT_QUANTIZE_SIMD_MX_INL_H_
#undef QUANTPORT_QUANTIZE_SIMD_MX_INL_H_
#else
#define QUANTPORT_QUANTIZE_SIMD_MX_INL_H_
#endif

#include "quantize/codes.h"
#include "quantize/simd/blocks-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quantport::quantize {
namespace HWY_NAMESPACE {

constexpr size_t kMxBlocks = kTileElements / 32;

// E8M0 codes of a tile's blocks from their largest magnitudes. `kAboveFraction` is added to BF16's 7 bits of fraction
// so that a fraction larger than the largest code's carries into the exponent; `kExponent` is that code's exponent.
template <uint32_t kAboveFraction, uint32_t kExponent>
HWY_INLINE bool FindExponents(const uint8_t* data, uint32_t smallest, uint32_t largest, uint8_t* scales) {
  HWY_ALIGN uint32_t amax[kBlocks];
  TileAmax(reinterpret_cast<const uint16_t*>(data), amax);
  bool ordinary = true;
  for (size_t i = 0; i < kMxBlocks; ++i) {
    const uint32_t bits = std::max(amax[2 * i], amax[2 * i + 1]) >> 16;
    const uint32_t exponent = (bits + kAboveFraction) >> 7;
    const uint32_t code = exponent > kExponent ? exponent - kExponent : 0;
    scales[i] = static_cast<uint8_t>(code);
    ordinary &= code >= smallest && code <= largest;
  }
  return ordinary;
}

HWY_INLINE void TileToMxfp8(const uint8_t* data, uint8_t* scales, uint8_t* codes) {
  const D16 d;
  // Smaller, and BF16 may be subnormal where codes are not; the largest is infinity's and NaN's.
  if (HWY_UNLIKELY((!FindExponents<0x1F, 8>(data, 16, 246, scales)))) {
    return reference::Mxfp8({data, ElementType::kBF16, kTileElements}, scales, codes);
  }
  PrefetchOutput(codes, kTileElements);
  const V16 one = Set16(1);
  const auto* elements = reinterpret_cast<const uint16_t*>(data);
  for (size_t i = 0; i < kTileVectors; ++i) {
    const uint32_t scale = scales[i * 2 * kLanes / 32];
    const V16 x = hn::LoadU(d, elements + i * 2 * kLanes);
    const V16 magnitude = hn::And(x, Set16(0x7FFF));
    // In E4M3's exponent, whose bias is 7.
    const V16 rebased = hn::SaturatedSub(magnitude, Set16(static_cast<uint16_t>((scale - 7) << 7)));
    const V16 tie_to_even = hn::And(hn::ShiftRight<4>(rebased), one);
    V16 code = hn::ShiftRight<4>(hn::Add(hn::Add(rebased, Set16(7)), tie_to_even));
    const V16 limit = Set16(static_cast<uint16_t>((scale - 6) << 7));  // the smallest normal code's element
    const auto subnormal = hn::Lt(hn::Sub(magnitude, one), hn::Sub(limit, one));
    if (HWY_UNLIKELY(!hn::AllFalse(d, subnormal))) {
      const VF factor = SetF(std::bit_cast<float>((254 - scale) << 23));
      const VU even = Bits(hn::Add(hn::Mul(EvenElements(magnitude), factor), SetF(0x1p14f)));
      const VU odd = Bits(hn::Add(hn::Mul(OddElements(magnitude), factor), SetF(0x1p14f)));
      code = hn::IfThenElse(hn::Lt(magnitude, limit), JoinLow(even, odd), code);
    }
    const V16 sign = hn::ShiftRight<8>(hn::AndNot(Set16(0x7FFF), x));
    hn::StoreU(hn::DemoteTo(DHalf8(), hn::BitCast(DI16(), hn::Or(code, sign))), DHalf8(), codes + i * 2 * kLanes);
  }
}

HWY_INLINE void TileToMxfp4(const uint8_t* data, uint8_t* scales, uint8_t* codes) {
  // By steps of 1/4 octave above 0.25, the bounds belonging to what is below.
  static constexpr uint8_t kCodeOfSteps[16] = {1, 1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 5, 6};
  // Larger, and an element may be so small that its quotient is zero, which has a sign of its own.
  if (HWY_UNLIKELY((!FindExponents<0x3F, 2>(data, 16, 140, scales)))) {
    return reference::Mxfp4({data, ElementType::kBF16, kTileElements}, scales, codes);
  }
  PrefetchOutput(codes, kTileElements / 2);
  const auto table = LoadTable(kCodeOfSteps);
  const auto* elements = reinterpret_cast<const uint16_t*>(data);
  const DI16 di;
  for (size_t i = 0; i < kTileVectors; ++i) {
    const uint32_t scale = scales[i * 2 * kLanes / 32];
    const V16 x = hn::LoadU(D16(), elements + i * 2 * kLanes);
    const V16 magnitude = hn::And(x, Set16(0x7FFF));
    const V16 above = hn::SaturatedSub(magnitude, Set16(static_cast<uint16_t>((scale - 2) << 7)));
    const auto steps = hn::ShiftRight<5>(hn::BitCast(di, hn::Sub(above, Set16(1))));
    // The table is not 0 at 0, which is what the upper bytes look up.
    const V16 code = hn::And(LookUpCode<16>(hn::BitCast(D16(), steps), table), Set16(0xFF));
    const auto positive = hn::Gt(hn::BitCast(di, x), hn::Zero(di));
    const V16 sign = hn::BitCast(D16(), hn::IfThenZeroElse(positive, hn::Set(di, 8)));
    StoreNibbles(hn::Or(code, sign), codes + i * kLanes);
  }
}

inline void Mxfp8(Row row, uint8_t* scales, uint8_t* codes) {
  size_t done = 0;
  if (row.type == ElementType::kBF16) {
    for (; done + kTileElements <= row.size; done += kTileElements) {
      TileToMxfp8(row.data + 2 * done, scales + done / 32, codes + done);
    }
  }
  reference::Mxfp8(row.Slice(done, row.size - done), scales + done / 32, codes + done);
}

inline void Mxfp4(Row row, uint8_t* scales, uint8_t* codes) {
  size_t done = 0;
  if (row.type == ElementType::kBF16) {
    for (; done + kTileElements <= row.size; done += kTileElements) {
      TileToMxfp4(row.data + 2 * done, scales + done / 32, codes + done / 2);
    }
  }
  reference::Mxfp4(row.Slice(done, row.size - done), scales + done / 32, codes + done / 2);
}

}  // namespace HWY_NAMESPACE
}  // namespace quantport::quantize
HWY_AFTER_NAMESPACE();

#endif
