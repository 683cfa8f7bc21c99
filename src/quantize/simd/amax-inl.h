// Largest magnitudes.
#if defined(QUANTPORT_QUANTIZE_SIMD_AMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUANTPORT_QUANTIZE_SIMD_AMAX_INL_H_
#undef QUANTPORT_QUANTIZE_SIMD_AMAX_INL_H_
#else
#define QUANTPORT_QUANTIZE_SIMD_AMAX_INL_H_
#endif

#include "quantize/simd/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quantport::quantize {
namespace HWY_NAMESPACE {

// As integers, of 2 bytes each; F16 and BF16 sort alike.
HWY_INLINE uint16_t Amax16(const uint8_t* data, size_t size) {
  const D16 d;
  const V16 magnitude = Set16(0x7FFF);
  constexpr size_t kStep = 2 * kLanes;
  V16 a = hn::Zero(d), b = a, c = a, e = a;
  const auto* elements = reinterpret_cast<const uint16_t*>(data);
  size_t i = 0;
  for (; i + 4 * kStep <= size; i += 4 * kStep) {
    PrefetchAhead(data + 2 * i, 8 * kStep);
    a = hn::Max(a, hn::And(hn::LoadU(d, elements + i), magnitude));
    b = hn::Max(b, hn::And(hn::LoadU(d, elements + i + kStep), magnitude));
    c = hn::Max(c, hn::And(hn::LoadU(d, elements + i + 2 * kStep), magnitude));
    e = hn::Max(e, hn::And(hn::LoadU(d, elements + i + 3 * kStep), magnitude));
  }
  for (; i + kStep <= size; i += kStep) a = hn::Max(a, hn::And(hn::LoadU(d, elements + i), magnitude));
  HWY_ALIGN uint16_t rest[kStep] = {};
  if (i < size) std::memcpy(rest, data + 2 * i, 2 * (size - i));
  a = hn::Max(a, hn::And(hn::Load(d, rest), magnitude));
  hn::Store(hn::Max(hn::Max(a, b), hn::Max(c, e)), d, rest);
  uint16_t largest = 0;
  for (const uint16_t lane : rest) largest = std::max(largest, lane);
  return largest;
}

HWY_INLINE uint32_t Amax32(const uint8_t* data, size_t size) {
  const DU d;
  const VU magnitude = SetU(0x7FFFFFFF);
  VU largest = hn::Zero(d);
  const auto* elements = reinterpret_cast<const uint32_t*>(data);
  size_t i = 0;
  for (; i + kLanes <= size; i += kLanes) largest = hn::Max(largest, hn::And(hn::LoadU(d, elements + i), magnitude));
  HWY_ALIGN uint32_t rest[kLanes] = {};
  if (i < size) std::memcpy(rest, data + 4 * i, 4 * (size - i));
  hn::Store(hn::Max(largest, hn::And(hn::Load(d, rest), magnitude)), d, rest);
  return *std::max_element(rest, rest + kLanes);
}

inline void GroupAmax(Row row, size_t group, float* amax) {
  ForGroups(row.size, group, [&](size_t first, size_t count, size_t number) HWY_ATTR {
    const uint8_t* data = row.data + first * ElementBytes(row.type);
    if (row.type == ElementType::kF32) {
      amax[number] = std::bit_cast<float>(Amax32(data, count));
    } else {
      const uint16_t bits = Amax16(data, count);
      amax[number] = row.type == ElementType::kBF16 ? FromBf16(bits) : FromF16(bits);
    }
  });
}

inline size_t FindNonfinite(Row row) {
  constexpr size_t kPart = 4096;
  const uint32_t infinity = row.type == ElementType::kF32    ? 0x7F800000
                            : row.type == ElementType::kBF16 ? 0x7F80
                                                             : 0x7C00;
  for (size_t first = 0; first < row.size; first += kPart) {
    const Row part = row.Slice(first, std::min(kPart, row.size - first));
    const uint32_t largest =
        row.type == ElementType::kF32 ? Amax32(part.data, part.size) : Amax16(part.data, part.size);
    if (largest >= infinity) return first + reference::FindNonfinite(part);
  }
  return row.size;
}

}  // namespace HWY_NAMESPACE
}  // namespace quantport::quantize
HWY_AFTER_NAMESPACE();

#endif
