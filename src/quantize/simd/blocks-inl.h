// Blocks of 16 BF16 elements, 16 at a time: what NVFP4 and the MX formats begin with.
#if defined(QUANTPORT_QUANTIZE_SIMD_BLOCKS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUANTPORT_QUANTIZE_SIMD_BLOCKS_INL_H_
#undef QUANTPORT_QUANTIZE_SIMD_BLOCKS_INL_H_
#else
#define QUANTPORT_QUANTIZE_SIMD_BLOCKS_INL_H_
#endif

#include "quantize/simd/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quantport::quantize {
namespace HWY_NAMESPACE {

constexpr size_t kBlockElements = 16;
constexpr size_t kBlocks = 16;
constexpr size_t kTileElements = kBlocks * kBlockElements;
constexpr size_t kTileVectors = kTileElements / (2 * kLanes);

// Halves the number of lanes that hold the maximum of each block; lanes stay in order.
template <size_t kVectors>
HWY_INLINE void HalveMaxima(V16* maxima) {
  const DU d;
#pragma GCC unroll 16
  for (size_t i = 0; i < kVectors / 2; ++i) {
    const VU low = hn::BitCast(d, maxima[2 * i]);
    const VU high = hn::BitCast(d, maxima[2 * i + 1]);
    maxima[i] =
        hn::Max(hn::BitCast(D16(), hn::ConcatEven(d, high, low)), hn::BitCast(D16(), hn::ConcatOdd(d, high, low)));
  }
}

// The largest magnitude of each of 16 blocks of BF16, as the bits of an F32, so that NaN is above infinity.
HWY_INLINE void TileAmax(const uint16_t* elements, uint32_t* amax) {
  const D16 d;
  PrefetchAhead(reinterpret_cast<const uint8_t*>(elements), 2 * kTileElements);
  V16 maxima[kTileVectors];  // in registers, once the loops are unrolled
#pragma GCC unroll 32
  for (size_t i = 0; i < kTileVectors; ++i) {
    const V16 magnitude = hn::And(hn::LoadU(d, elements + i * 2 * kLanes), Set16(0x7FFF));
    maxima[i] = hn::Max(magnitude, hn::BitCast(d, hn::ShiftRight<16>(hn::BitCast(DU(), magnitude))));
  }
  HalveMaxima<kTileVectors>(maxima);
  HalveMaxima<kTileVectors / 2>(maxima);
  HalveMaxima<kTileVectors / 4>(maxima);
#pragma GCC unroll 4
  for (size_t i = 0; i < kBlocks / kLanes; ++i) {
    hn::Store(hn::ShiftLeft<16>(hn::BitCast(DU(), maxima[i])), DU(), amax + i * kLanes);
  }
}

// For vector i of a tile's pairs, a lane's block's number out of `of_block`.
HWY_INLINE VF LanesOfBlocks(const float* of_block, size_t i) {
  constexpr size_t kLanesOfBlock = kBlockElements / 2;
  if constexpr (kLanes <= kLanesOfBlock) {
    return SetF(of_block[i * kLanes / kLanesOfBlock]);
  } else {
    return hn::IfThenElse(hn::FirstN(DF(), kLanesOfBlock), SetF(of_block[2 * i]), SetF(of_block[2 * i + 1]));
  }
}

// Two codes of 4 bits in each pair of 16-bit lanes, as bytes.
HWY_INLINE void StoreNibbles(V16 codes, uint8_t* out) {
  const VU pairs = hn::BitCast(DU(), codes);
  hn::StoreU(hn::TruncateTo(DQuarter8(), hn::Or(pairs, hn::ShiftRight<12>(pairs))), DQuarter8(), out);
}

// Looks a number from -1 to `kEnd` up in 16 codes, of which the last is for 15 to `kLast`, and above is the code 7.
template <uint16_t kLast>
HWY_INLINE V16 LookUpCode(V16 number, hn::Vec<D8> table) {
  const DI16 di;
  const auto signed_number = hn::BitCast(di, number);
  const auto index = hn::Min(signed_number, hn::Set(di, 15));
  const V16 code = hn::BitCast(D16(), hn::TableLookupBytesOr0(table, hn::BitCast(D8(), index)));
  const auto beyond = hn::Gt(signed_number, hn::Set(di, static_cast<int16_t>(kLast)));
  return hn::Sub(code, hn::BitCast(D16(), hn::VecFromMask(di, beyond)));
}

HWY_INLINE hn::Vec<D8> LoadTable(const uint8_t* sixteen_bytes) { return hn::LoadDup128(D8(), sixteen_bytes); }

}  // namespace HWY_NAMESPACE
}  // namespace quantport::quantize
HWY_AFTER_NAMESPACE();

#endif
