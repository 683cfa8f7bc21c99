// The fields of everything that a plan is made of, each in one list that writing, reading and counting share. A field
// that is added to a struct and not here does not compile.
#pragma once

#include <concepts>
#include <tuple>
#include <type_traits>

#include "plan/quantize_plan.h"

namespace quantport::plan_fields {

template <typename T, typename U>
concept Is = std::same_as<std::remove_const_t<T>, U>;

// clang-format off
template <Is<FileStamp> T> auto FieldsOf(T& x) { auto& [a, b, c, d, e, f] = x; return std::tie(a, b, c, d, e, f); }
template <Is<TensorInfo> T> auto FieldsOf(T& x) { auto& [a, b, c, d, e] = x; return std::tie(a, b, c, d, e); }
template <Is<Index> T> auto FieldsOf(T& x) { auto& [a, b, c] = x; return std::tie(a, b, c); }
template <Is<BlockDim> T> auto FieldsOf(T& x) { auto& [a, b, c] = x; return std::tie(a, b, c); }
template <Is<Block> T> auto FieldsOf(T& x) { auto& [a, b, c, d] = x; return std::tie(a, b, c, d); }
template <Is<Array> T> auto FieldsOf(T& x) { auto& [a, b, c, d] = x; return std::tie(a, b, c, d); }
template <Is<Run> T> auto FieldsOf(T& x) { auto& [a, b, c, d, e] = x; return std::tie(a, b, c, d, e); }
template <Is<ScaleStep> T> auto FieldsOf(T& x) { auto& [a, b, c] = x; return std::tie(a, b, c); }
template <Is<PlanSource> T> auto FieldsOf(T& x) { auto& [a, b] = x; return std::tie(a, b); }
template <Is<SourceTensor> T> auto FieldsOf(T& x) { auto& [a, b, c, d, e] = x; return std::tie(a, b, c, d, e); }
template <Is<CopyRange> T> auto FieldsOf(T& x) { auto& [a, b, c, d, e] = x; return std::tie(a, b, c, d, e); }
template <Is<PlannedTensor> T> auto FieldsOf(T& x) { auto& [a, b, c, d, e, f] = x; return std::tie(a, b, c, d, e, f); }
template <Is<ByteRange> T> auto FieldsOf(T& x) { auto& [a, b] = x; return std::tie(a, b); }
template <Is<StayingData> T> auto FieldsOf(T& x) { auto& [a, b, c, d, e] = x; return std::tie(a, b, c, d, e); }
template <Is<PlannedFile> T> auto FieldsOf(T& x) { auto& [a, b, c, d, e, f] = x; return std::tie(a, b, c, d, e, f); }
template <Is<PlannedCheck> T> auto FieldsOf(T& x) { auto& [a, b, c, d, e] = x; return std::tie(a, b, c, d, e); }
template <Is<PlannedMerge> T> auto FieldsOf(T& x) { auto& [a, b, c, d, e] = x; return std::tie(a, b, c, d, e); }
template <Is<PlannedCopy> T> auto FieldsOf(T& x) { auto& [a, b, c] = x; return std::tie(a, b, c); }
template <Is<Plan> T> auto FieldsOf(T& x) {
  auto& [a, b, c, d, e, f, g, h, i, j] = x;
  return std::tie(a, b, c, d, e, f, g, h, i, j);
}
template <Is<Encoding> T> auto FieldsOf(T& x) {
  auto& [a, b, c, d, e, f, g, h, i] = x;
  return std::tie(a, b, c, d, e, f, g, h, i);
}
template <Is<OutputPlace> T> auto FieldsOf(T& x) { auto& [a, b] = x; return std::tie(a, b); }
template <Is<Variant> T> auto FieldsOf(T& x) {
  auto& [a, b, c, d, e, f, g, h, i, j, k] = x;
  return std::tie(a, b, c, d, e, f, g, h, i, j, k);
}
template <Is<CodedPart> T> auto FieldsOf(T& x) { auto& [a, b, c, d, e] = x; return std::tie(a, b, c, d, e); }
template <Is<CodedWeight> T> auto FieldsOf(T& x) { auto& [a, b, c, d, e] = x; return std::tie(a, b, c, d, e); }
template <Is<Target> T> auto FieldsOf(T& x) { auto& [a, b, c] = x; return std::tie(a, b, c); }
template <Is<MatrixSource> T> auto FieldsOf(T& x) { auto& [a, b] = x; return std::tie(a, b); }
template <Is<PlannedMatrix> T> auto FieldsOf(T& x) {
  auto& [a, b, c, d, e, f, g, h, i, j, k, l, m, n] = x;
  return std::tie(a, b, c, d, e, f, g, h, i, j, k, l, m, n);
}
template <Is<PlannedScalar> T> auto FieldsOf(T& x) { auto& [a, b, c] = x; return std::tie(a, b, c); }
template <Is<Computing> T> auto FieldsOf(T& x) { auto& [a, b, c] = x; return std::tie(a, b, c); }
template <Is<QuantizePlan> T> auto FieldsOf(T& x) { auto& [a, b, c, d, e] = x; return std::tie(a, b, c, d, e); }
// clang-format on

template <typename T>
concept HasFields = requires(T& x) {
  FieldsOf(x);
};

// The last value of each enumeration.
template <typename E>
constexpr E kLast = {};
template <>
inline constexpr DType kLast<DType> = static_cast<DType>(kDTypeCount - 1);
template <>
inline constexpr FormatId kLast<FormatId> = FormatId::kUnrecognized;
template <>
inline constexpr Role kLast<Role> = Role::kUnknown;
template <>
inline constexpr Granularity kLast<Granularity> = Granularity::kHalves;
template <>
inline constexpr ScaleSearch kLast<ScaleSearch> = ScaleSearch::kSweep;
template <>
inline constexpr ScaleStep::Kind kLast<ScaleStep::Kind> = ScaleStep::Kind::kBlockScales;

}  // namespace quantport::plan_fields
