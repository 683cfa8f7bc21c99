// NVFP4.
#if defined(QUANTPORT_QUANTIZE_SIMD_NVFP4_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUANTPORT_QUANTIZE_SIMD_NVFP4_INL_H_
#undef QUANTPORT_QUANTIZE_SIMD_NVFP4_INL_H_
#else
#define QUANTPORT_QUANTIZE_SIMD_NVFP4_INL_H_
#endif

#include "quantize/codes.h"
#include "quantize/simd/blocks-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quantport::quantize {
namespace HWY_NAMESPACE {

// As EncodeE2m1ToEven, a code a lane. Ties go to even codes, so rounding at a step that depends on the exponent is all:
// 0.5 below 2, 1 below 4, 2 above.
HWY_INLINE VU EncodeE2m1ToEvenLanes(VF value) {
  const VF clamped = hn::Min(hn::Abs(value), SetF(8.0f));
  const VU exponent = hn::Max(hn::And(Bits(clamped), SetU(0x7F800000)), Bits(SetF(1.0f)));
  // 2^22 times the power of two below has just that step; the sum's last bits are 2 to 4 steps, and its exponent the
  // rest.
  const VU magic = hn::Add(exponent, SetU(22u << 23));
  const VU steps = hn::Sub(Bits(hn::Add(clamped, Float(magic))), magic);
  const VU doubled_exponent = hn::ShiftRight<22>(hn::Sub(exponent, Bits(SetF(1.0f))));
  const VU code = hn::Min(hn::Add(steps, doubled_exponent), SetU(7));
  const VU magnitude = hn::And(Bits(value), SetU(0x7FFFFFFF));
  const VU nan_is_largest = Choose(Less(SetU(0x7F800000), magnitude), SetU(7), code);
  const auto negative = hn::Lt(value, hn::Zero(DF()));
  return hn::Or(nan_is_largest, Bits(hn::IfThenElseZero(negative, Float(SetU(8)))));
}

// True division: for every type and scale. `count` elements, a multiple of `block`.
template <ElementType kType>
HWY_INLINE void DivideToNvfp4(const uint8_t* data, size_t count, float global_scale, size_t block,
                              const uint8_t* scales, uint8_t* codes) {
  HWY_ALIGN uint32_t lanes[kLanes];
  for (size_t i = 0; i < count; i += kLanes) {
    const VF divisor = SetF(DecodeE4m3(scales[i / block]) * global_scale);
    hn::Store(EncodeE2m1ToEvenLanes(hn::Div(LoadAs<kType>(data + i * ElementBytes(kType)), divisor)), DU(), lanes);
    for (size_t k = 0; k < kLanes; k += 2) codes[(i + k) / 2] = static_cast<uint8_t>(lanes[k] | lanes[k + 1] << 4);
  }
}

// 16 blocks of BF16 on their way.
struct Nvfp4Tile {
  HWY_ALIGN uint32_t amax[kBlocks];  // as bits of F32
  HWY_ALIGN uint32_t scales[kBlocks];
  HWY_ALIGN float factors[kBlocks];  // 4 / divisor
};

// Blocks of 32 are two of 16 with one maximum.
HWY_INLINE void ShareMaxima(uint32_t* amax) {
  for (size_t i = 0; i < kBlocks; i += 2) amax[i] = amax[i + 1] = std::max(amax[i], amax[i + 1]);
}

HWY_INLINE bool IsFinite(const Nvfp4Tile& tile) {
  VU largest = hn::Load(DU(), tile.amax);
  for (size_t i = kLanes; i < kBlocks; i += kLanes) largest = hn::Max(largest, hn::Load(DU(), tile.amax + i));
  return hn::AllTrue(DI(), Less(largest, SetU(0x7F800000)));
}

// From amax to block scales. Magnitudes of finite numbers only.
HWY_INLINE void FindScales(float global_scale, Nvfp4Tile* tile) {
  const VF divisor = SetF(kE2m1Max * global_scale);
  for (size_t i = 0; i < kBlocks; i += kLanes) {
    const VF scale = hn::Div(Float(hn::Load(DU(), tile->amax + i)), divisor);
    const VF clamped = hn::Min(hn::Max(scale, SetF(0x1p-9f)), SetF(kE4m3Max));
    const auto zero = hn::Eq(scale, hn::Zero(DF()));
    hn::Store(EncodeE4m3Magnitude(hn::IfThenElse(zero, SetF(1.0f), clamped)), DU(), tile->scales + i);
  }
}

HWY_INLINE void StoreScales(const Nvfp4Tile& tile, size_t blocks_of_16, uint8_t* scales) {
  if (blocks_of_16 == 1) {
    for (size_t i = 0; i < kBlocks; i += kLanes) {
      hn::StoreU(hn::TruncateTo(DQuarter8(), hn::Load(DU(), tile.scales + i)), DQuarter8(), scales + i);
    }
  } else {
    for (size_t i = 0; i < kBlocks / 2; ++i) scales[i] = static_cast<uint8_t>(tile.scales[2 * i]);
  }
}

// Whether codes can be found by multiplication in all blocks: see NearBoundary. Decisions are at 1, 1.25, 1.5 and 1.75
// times powers of two; and where an element is more than 2^12 times its divisor, its quotient would not fit into 16
// bits.
HWY_INLINE bool FindFactors(float global_scale, Nvfp4Tile* tile) {
  auto unsafe = hn::Lt(hn::Zero(DF()), hn::Zero(DF()));
  for (size_t i = 0; i < kBlocks; i += kLanes) {
    const VF divisor = hn::Mul(DecodeE4m3Codes(hn::Load(DU(), tile->scales + i)), SetF(global_scale));
    const VF factor = hn::Div(SetF(4.0f), divisor);
    auto near = hn::Or(NearBoundary(divisor, 1.0f), NearBoundary(divisor, 1.25f));
    near = hn::Or(near, hn::Or(NearBoundary(divisor, 1.5f), NearBoundary(divisor, 1.75f)));
    const auto large = hn::Gt(hn::Mul(Float(hn::Load(DU(), tile->amax + i)), factor), SetF(0x1p12f));
    const auto unusual = hn::Or(large, hn::Lt(divisor, hn::Zero(DF())));
    unsafe = hn::Or(unsafe, hn::Or(hn::RebindMask(DF(), near), unusual));
    hn::Store(factor, DF(), tile->factors + i);
  }
  return hn::AllFalse(DF(), unsafe);
}

// Codes of a tile whose factors are safe. 2^23 - 0.5 + 4q rounds to 2^23 plus the number of quarters in q, which a
// table turns into the code; below one quarter that is -1 or 0.
HWY_INLINE void MultiplyToNvfp4(const uint16_t* elements, const Nvfp4Tile& tile, uint8_t* codes) {
  static constexpr uint8_t kCodeOfQuarters[16] = {0, 1, 1, 2, 2, 3, 3, 4, 4, 4, 5, 5, 5, 5, 6, 6};
  const auto table = LoadTable(kCodeOfQuarters);
  const VF rounding = SetF(0x1p23f - 0.5f);
#pragma GCC unroll 4
  for (size_t i = 0; i < kTileVectors; ++i) {
    const V16 x = hn::LoadU(D16(), elements + i * 2 * kLanes);
    const V16 magnitude = hn::And(x, Set16(0x7FFF));
    const VF factor = LanesOfBlocks(tile.factors, i);
    const VU even = Bits(hn::MulAdd(EvenElements(magnitude), factor, rounding));
    const VU odd = Bits(hn::MulAdd(OddElements(magnitude), factor, rounding));
    const V16 code = LookUpCode<19>(JoinLow(even, odd), table);
    // Neither zero has a sign.
    const V16 negative = hn::And(x, hn::Add(magnitude, Set16(0x7FFF)));
    const V16 sign = hn::And(hn::ShiftRight<12>(negative), Set16(8));
    StoreNibbles(hn::Or(code, sign), codes + i * kLanes);
  }
}

// Far from where a divisor would be subnormal, or a quotient vanish: -0 has no sign, and -x must not become it.
HWY_INLINE bool IsOrdinary(float global_scale) { return global_scale > 0x1p-90f && global_scale < 0x1p8f; }

// One tile. With `kDynamic` its scales are found, else they are given.
template <bool kDynamic>
HWY_INLINE void TileToNvfp4(const uint8_t* data, float global_scale, size_t block,
                            std::conditional_t<kDynamic, uint8_t*, const uint8_t*> scales, uint8_t* codes) {
  Nvfp4Tile tile;
  const auto* elements = reinterpret_cast<const uint16_t*>(data);
  const size_t blocks_of_16 = block / kBlockElements;
  TileAmax(elements, tile.amax);
  PrefetchOutput(codes, kTileElements / 2);
  if (blocks_of_16 == 2) ShareMaxima(tile.amax);
  const bool finite = IsFinite(tile);
  if constexpr (kDynamic) {
    if (!finite) return reference::Nvfp4({data, ElementType::kBF16, kTileElements}, global_scale, block, scales, codes);
    FindScales(global_scale, &tile);
    StoreScales(tile, blocks_of_16, scales);
  } else {
    for (size_t i = 0; i < kBlocks; ++i) tile.scales[i] = scales[i / blocks_of_16];
  }
  if (finite && FindFactors(global_scale, &tile)) return MultiplyToNvfp4(elements, tile, codes);
  DivideToNvfp4<ElementType::kBF16>(data, kTileElements, global_scale, block, scales, codes);
}

template <bool kDynamic, typename Scales>
HWY_INLINE void RowToNvfp4(Row row, float global_scale, size_t block, Scales scales, uint8_t* codes) {
  size_t done = 0;
  if (row.type == ElementType::kBF16 && IsOrdinary(global_scale)) {
    for (; done + kTileElements <= row.size; done += kTileElements) {
      TileToNvfp4<kDynamic>(row.data + 2 * done, global_scale, block, scales + done / block, codes + done / 2);
    }
  }
  const Row rest = row.Slice(done, row.size - done);
  if constexpr (kDynamic) {
    // Scales are one in 16, the work is with the elements.
    const float divisor = kE2m1Max * global_scale;
    for (size_t i = 0; i < rest.size / block; ++i) {
      float amax;
      GroupAmax(rest.Slice(i * block, block), block, &amax);
      scales[done / block + i] = reference::EncodeBlockScale(amax, divisor);
    }
  }
  WithType(row.type, [&](auto type) HWY_ATTR {
    DivideToNvfp4<type.value>(rest.data, rest.size, global_scale, block, scales + done / block, codes + done / 2);
  });
}

inline void Nvfp4(Row row, float global_scale, size_t block, uint8_t* scales, uint8_t* codes) {
  RowToNvfp4<true>(row, global_scale, block, scales, codes);
}

inline void Nvfp4WithScales(Row row, float global_scale, size_t block, const uint8_t* scales, uint8_t* codes) {
  RowToNvfp4<false>(row, global_scale, block, scales, codes);
}

}  // namespace HWY_NAMESPACE
}  // namespace quantport::quantize
HWY_AFTER_NAMESPACE();

#endif
