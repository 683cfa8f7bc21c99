// What the files of formats are made of: axes, and the shapes that tensors with these axes have.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "format/format.h"

namespace quantport {

// Every logical dimension is the stored one of the same place, element for element.
Axes SameDims(size_t rank);
// `bits` wide values one after the other in words of `word_bits`: whole words where the values fill them.
Axis PackedAxis(size_t dim, uint64_t size, uint64_t bits, uint64_t word_bits);
// `count` values in each stored element.
Axis PackedAxis(size_t dim, uint64_t count);
// A dimension that is all or nothing.
Axis WholeAxis(size_t dim, uint64_t size, uint64_t stored, std::string_view why);
// Values that share a scale where `count` scales stand for `size` values, each for as many.
std::optional<uint64_t> GroupSize(uint64_t size, uint64_t count);

// The stored tensor of `rank` dimensions with these axes: a dimension that carries no logical one has size 1.
Form FormOf(const Shape& logical, size_t rank, Axes axes);
// The form of a tensor with the logical dimensions in their places.
Form SameForm(const Shape& logical);
// The same, several values of dimension `dim` in each element as `axis` says.
Form PackedForm(const Shape& logical, const Axis& axis, size_t dim);

// One number for the whole weight, or for each entry of a leading expert dimension: [], [1], [E], [E, 1], [E, 1, 1].
std::vector<Form> ScalarForms(const Shape& logical);
// One number for each output row: [out], [out, 1], and the same behind an expert dimension.
std::vector<Form> RowForms(const Shape& logical);
// One number for `group` values along dimension `dim` of each row: [out, in/group].
std::vector<Form> GroupForms(const Shape& logical, size_t dim, uint64_t group);
// One number for each tile: [.., cdiv(out), cdiv(in)], or ModelOpt's [cdiv(out), 1, cdiv(in), 1], which comes first.
std::vector<Form> TileForms(const Shape& logical, const std::array<uint64_t, 2>& tile);
// One number for each input, which is the logical dimension `dim`: [in], also shared by or repeated for experts.
std::vector<Form> InputForms(const Shape& logical, size_t dim);
// By granularity kTensor, kRows, kGroups (along the last dimension) or kTiles.
std::vector<Form> ScaleForms(const Shape& logical, const Variant& variant);

// Why a format is not written for batched experts.
std::string OfBatchedExperts(FormatId format);

// Parts that many formats have. A scalar is written as [], of stacked experts as well.
Part ScalarPart(Role role, std::string_view leaf, const DTypes& dtypes, const Shape& logical, bool required);
// input_scale and output_scale of activations, where they were calibrated.
void AddActivationScales(const Shape& logical, std::vector<Part>* parts);
// pre_quant_scale, by which the inputs, the logical dimension `dim`, are multiplied.
Part SmoothingPart(const Shape& logical, size_t dim, bool required);

}  // namespace quantport
