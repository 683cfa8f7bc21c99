// Stored linears by their formats' own shapes, recognized as a user's file would be.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "layout/logical_weight.h"
#include "layout/recognize.h"
#include "unit/dense.h"

namespace quantport::test {

using Shape = std::vector<uint64_t>;

struct LinearStore : Store {
  LogicalWeight Weight(const std::string& key, uint64_t fp8_block_size = 128) const {
    const auto units = RecognizeUnits(table, {.quantized = false, .fp8_tile = {fp8_block_size, fp8_block_size}});
    EXPECT_TRUE(units.ok());
    for (const WeightUnit& unit : *units) {
      if (unit.key == key) return unit.weight;
    }
    ADD_FAILURE() << key << " was not recognized";
    return {};
  }

  LogicalWeight Plain(const std::string& name, const Shape& shape) {
    Add(name + ".weight", DType::kBF16, shape);
    return Weight(name + ".weight");
  }

  LogicalWeight Nvfp4(const std::string& name, uint64_t out, uint64_t in) {
    Add(name + ".weight", DType::kU8, {out, in / 2});
    Add(name + ".weight_scale", DType::kF8E4M3, {out, in / 16});
    Add(name + ".weight_scale_2", DType::kF32, {});
    Add(name + ".input_scale", DType::kF32, {});
    return Weight(name + ".weight");
  }

  LogicalWeight StackedNvfp4(const std::string& name, uint64_t experts, uint64_t out, uint64_t in) {
    Add(name, DType::kU8, {experts, out, in / 2});
    Add(name + "_weight_scale", DType::kF8E4M3, {experts, out, in / 16});
    Add(name + "_weight_scale_2", DType::kF32, {experts});
    Add(name + "_input_scale", DType::kF32, {experts});
    return Weight(name);
  }

  LogicalWeight Fp8(const std::string& name, const Shape& shape, const Shape& scale,
                    const std::string& leaf = "weight_scale", uint64_t block_size = 128) {
    Add(name + ".weight", DType::kF8E4M3, shape);
    Add(name + "." + leaf, DType::kF32, scale);
    return Weight(name + ".weight", block_size);
  }

  // The part of this leaf; "weight" is the value, whatever it is called.
  static const Array& PartArray(const LogicalWeight& weight, const std::string& leaf) {
    static const Array kNone;
    if (leaf == "weight") return weight.parts.at(0).array;
    const StoredPart* part = weight.Find(leaf);
    EXPECT_NE(part, nullptr) << leaf;
    return part == nullptr ? kNone : part->array;
  }

  std::string PartBytes(const LogicalWeight& weight, const std::string& leaf) const {
    return Bytes(PartArray(weight, leaf));
  }

  // The elements of one part as a plain list.
  Dense Part(const LogicalWeight& weight, const std::string& leaf) const {
    const Array& array = PartArray(weight, leaf);
    return Dense::FromBytes(Bytes(array), array.shape, DTypeBits(array.dtype));
  }

  // The same parts with the same shapes and bytes.
  void ExpectSame(const LogicalWeight& a, const LogicalWeight& b) const {
    EXPECT_EQ(a.format, b.format);
    EXPECT_EQ(a.shape, b.shape);
    ASSERT_EQ(a.parts.size(), b.parts.size());
    for (size_t i = 0; i < a.parts.size(); ++i) {
      EXPECT_EQ(a.parts[i].leaf, b.parts[i].leaf);
      EXPECT_EQ(a.parts[i].array.shape, b.parts[i].array.shape) << a.parts[i].leaf;
      EXPECT_EQ(Bytes(a.parts[i].array), Bytes(b.parts[i].array)) << a.parts[i].leaf;
      ASSERT_EQ(a.parts[i].axes.size(), b.parts[i].axes.size()) << a.parts[i].leaf;
      for (size_t dim = 0; dim < a.parts[i].axes.size(); ++dim) {
        const auto& x = a.parts[i].axes[dim];
        const auto& y = b.parts[i].axes[dim];
        ASSERT_EQ(x.has_value(), y.has_value()) << a.parts[i].leaf << " " << dim;
        if (!x) continue;
        EXPECT_EQ(x->dim, y->dim) << a.parts[i].leaf << " " << dim;
        EXPECT_EQ(x->granularity, y->granularity) << a.parts[i].leaf << " " << dim;
        EXPECT_EQ(x->multiple, y->multiple) << a.parts[i].leaf << " " << dim;
      }
    }
  }
};

}  // namespace quantport::test
