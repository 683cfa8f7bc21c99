// Largest magnitudes and errors.
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

// Sums of one vector a time in F64 lanes, so that 2^53 / 2^24 additions lose nothing that a report would show.
template <ElementType kType>
HWY_INLINE void AddErrorRun(const uint8_t* data, const float* dequantized, size_t size, float limit, ErrorSums* sums) {
  using D64 = hn::Repartition<double, DF>;
  const D64 d64;
  const hn::Rebind<float, D64> dhalf;
  const DF d;
  hn::Vec<D64> squared_error = hn::Zero(d64), squares = hn::Zero(d64);
  VF largest = hn::Zero(d);
  size_t clipped = 0;
  const size_t bytes = ElementBytes(kType);
  const auto add_half = [&](auto error, auto original) HWY_ATTR {
    const auto wide_error = hn::PromoteTo(d64, error);
    const auto wide = hn::PromoteTo(d64, original);
    squared_error = hn::MulAdd(wide_error, wide_error, squared_error);
    squares = hn::MulAdd(wide, wide, squares);
  };
  const auto add = [&](const uint8_t* in, const float* out) HWY_ATTR {
    const VF original = LoadAs<kType>(in);
    const VF error = hn::Abs(hn::Sub(original, hn::LoadU(d, out)));
    // NaN compares false.
    const auto finite = hn::And(hn::Lt(hn::Abs(original), SetF(HUGE_VALF)), hn::Lt(error, SetF(HUGE_VALF)));
    const VF counted_error = hn::IfThenElseZero(finite, error);
    const VF counted = hn::IfThenElseZero(finite, original);
    largest = hn::Max(largest, counted_error);
    clipped += hn::CountTrue(d, hn::Gt(hn::Abs(counted), SetF(limit)));
    add_half(hn::LowerHalf(dhalf, counted_error), hn::LowerHalf(dhalf, counted));
    add_half(hn::UpperHalf(dhalf, counted_error), hn::UpperHalf(dhalf, counted));
  };
  size_t i = 0;
  for (; i + kLanes <= size; i += kLanes) add(data + i * bytes, dequantized + i);
  if (i < size) {
    HWY_ALIGN uint8_t in[kLanes * sizeof(float)] = {};
    HWY_ALIGN float out[kLanes] = {};
    std::memcpy(in, data + i * bytes, (size - i) * bytes);
    std::memcpy(out, dequantized + i, (size - i) * sizeof(float));
    add(in, out);
  }
  sums->squared_error += hn::GetLane(hn::SumOfLanes(d64, squared_error));
  sums->squares += hn::GetLane(hn::SumOfLanes(d64, squares));
  sums->max_error = std::max(sums->max_error, hn::GetLane(hn::MaxOfLanes(d, largest)));
  sums->clipped += clipped;
  sums->elements += size;
}

inline void AddError(Row row, const float* dequantized, const float* limits, size_t group, ErrorSums* sums) {
  WithType(row.type, [&](auto type) HWY_ATTR {
    ForGroups(row.size, group, [&](size_t first, size_t count, size_t number) HWY_ATTR {
      AddErrorRun<type.value>(row.data + first * ElementBytes(type.value), dequantized + first, count, limits[number],
                              sums);
    });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace quantport::quantize
HWY_AFTER_NAMESPACE();

#endif
