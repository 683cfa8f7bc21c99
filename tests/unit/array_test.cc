#include "layout/array.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "unit/dense.h"
#include "unit/error_lines.h"

namespace quantport {
namespace {

using test::Dense;
using test::ErrorLines;
using test::Store;
using testing::ElementsAre;
using testing::IsEmpty;

// A view and what it should stand for.
struct Pair {
  Array view;
  Dense dense;
};

void ExpectSame(const Store& store, const Pair& pair) {
  EXPECT_EQ(pair.view.shape, pair.dense.shape);
  EXPECT_FALSE(pair.view.blocks.empty()) << "nothing says which tensor it is of";
  EXPECT_EQ(store.Bytes(pair.view), pair.dense.ToBytes(DTypeBits(pair.view.dtype)));
}

TEST(ArrayTest, AWholeTensorIsOneRun) {
  Store store;
  const uint32_t t = store.Add("t", DType::kBF16, {3, 4, 5});
  const auto runs = Runs(store.Whole(t));
  ASSERT_TRUE(runs.ok());
  ASSERT_EQ(runs->size(), 1u);
  EXPECT_EQ((*runs)[0].bytes, 120u);
}

TEST(ArrayTest, AZeroDimensionalTensorIsOneElement) {
  Store store;
  const uint32_t t = store.Add("t", DType::kF32, {});
  const Array view = store.Whole(t);
  EXPECT_THAT(view.shape, IsEmpty());
  EXPECT_EQ(store.Bytes(view), store.bytes[t]);
}

TEST(ArrayTest, AnEmptyTensorHasNoRuns) {
  Store store;
  for (const std::vector<uint64_t>& shape : {std::vector<uint64_t>{0}, {2, 0, 3}, {0, 1ull << 40, 1ull << 40}}) {
    const uint32_t t = store.Add("t", DType::kF32, shape);
    const auto runs = Runs(store.Whole(t));
    ASSERT_TRUE(runs.ok());
    EXPECT_THAT(*runs, IsEmpty());
  }
}

TEST(ArrayTest, SlicingRowsIsOneRunAndSlicingColumnsOneForEachRow) {
  Store store;
  const uint32_t t = store.Add("t", DType::kF32, {4, 6});
  const auto rows = Runs(Slice(store.Whole(t), 0, 1, 2));
  ASSERT_TRUE(rows.ok());
  EXPECT_EQ(rows->size(), 1u);
  EXPECT_EQ((*rows)[0].source, 24u);
  const auto columns = Runs(Slice(store.Whole(t), 1, 2, 3));
  ASSERT_TRUE(columns.ok());
  EXPECT_EQ(columns->size(), 4u);
  EXPECT_EQ((*columns)[1].source, 32u);
  EXPECT_EQ((*columns)[1].target, 12u);
}

TEST(ArrayTest, SelectingRemovesOneDimensionAndNoOther) {
  Store store;
  const Array view = store.Whole(store.Add("t", DType::kF32, {2, 1, 1}));
  EXPECT_THAT(Select(view, 0, 1).shape, ElementsAre(1, 1));
  EXPECT_THAT(Select(Select(view, 0, 1), 0, 0).shape, ElementsAre(1));
  EXPECT_THAT(Select(Select(Select(view, 0, 1), 0, 0), 0, 0).shape, IsEmpty());
  EXPECT_EQ(store.Bytes(Select(view, 0, 1)), store.bytes[0].substr(4));
}

TEST(ArrayTest, StackingScalarsGivesAVector) {
  Store store;
  const uint32_t a = store.Add("a", DType::kF32, {});
  const uint32_t b = store.Add("b", DType::kF32, {});
  const Array view = Stack(std::vector{store.Whole(a), store.Whole(b)}, 0);
  EXPECT_THAT(view.shape, ElementsAre(2));
  EXPECT_EQ(store.Bytes(view), store.bytes[a] + store.bytes[b]);
}

TEST(ArrayTest, ConcatenatesAlongInnerDimensions) {
  Store store;
  const uint32_t a = store.Add("a", DType::kBF16, {2, 3, 4});
  const uint32_t b = store.Add("b", DType::kBF16, {2, 5, 4});
  const uint32_t c = store.Add("c", DType::kBF16, {2, 3, 1});
  ExpectSame(store, {Concatenate(std::vector{store.Whole(a), store.Whole(b)}, 1),
                     test::DenseConcatenate({store.Elements(a), store.Elements(b)}, 1)});
  ExpectSame(store, {Concatenate(std::vector{store.Whole(c), store.Whole(a), store.Whole(c)}, 2),
                     test::DenseConcatenate({store.Elements(c), store.Elements(a), store.Elements(c)}, 2)});
}

TEST(ArrayTest, PartsPutTogetherAgainAreOneRun) {
  Store store;
  const uint32_t t = store.Add("t", DType::kU8, {4, 6, 5});
  const Array whole = store.Whole(t);
  for (size_t dim = 0; dim < 3; ++dim) {
    const auto runs = Runs(Concatenate(
        std::vector{Slice(whole, dim, 0, 1), Slice(whole, dim, 1, 2), Slice(whole, dim, 3, whole.shape[dim] - 3)},
        dim));
    ASSERT_TRUE(runs.ok());
    EXPECT_EQ(runs->size(), 1u) << dim;
  }
}

TEST(ArrayTest, CutsSubByteElementsOnlyBetweenBytes) {
  Store store;
  const uint32_t t = store.Add("t", DType::kF4, {3, 8});
  const Array whole = store.Whole(t);
  ExpectSame(store, {Slice(whole, 1, 2, 4), test::DenseSlice(store.Elements(t), 1, 2, 4)});
  ExpectSame(store, {Slice(whole, 0, 1, 2), test::DenseSlice(store.Elements(t), 0, 1, 2)});
  for (const auto& [begin, length] : std::vector<std::pair<uint64_t, uint64_t>>{{1, 4}, {0, 3}, {3, 3}}) {
    EXPECT_THAT(ErrorLines(Runs(Slice(whole, 1, begin, length))),
                ElementsAre("QuantConversionUnsupportedError a cut of F4 elements does not fall between bytes"))
        << begin;
  }
  // A row of 5 elements ends in the middle of a byte.
  const uint32_t odd = store.Add("odd", DType::kF4, {4, 5});
  ExpectSame(store, {Slice(store.Whole(odd), 0, 2, 2), test::DenseSlice(store.Elements(odd), 0, 2, 2)});
  EXPECT_FALSE(Runs(Slice(store.Whole(odd), 0, 1, 2)).ok());
  EXPECT_FALSE(Runs(Select(store.Whole(odd), 0, 0)).ok());
}

TEST(ArrayTest, CutsSixBitElementsInFours) {
  Store store;
  const uint32_t t = store.Add("t", DType::kF6E3M2, {2, 12});
  ExpectSame(store, {Slice(store.Whole(t), 1, 4, 8), test::DenseSlice(store.Elements(t), 1, 4, 8)});
  EXPECT_THAT(ErrorLines(Runs(Slice(store.Whole(t), 1, 2, 8))),
              ElementsAre("QuantConversionUnsupportedError a cut of F6_E3M2 elements does not fall between bytes"));
}

// ---- splitting, merging, swapping ---------------------------------------------------------------------------------

TEST(ArrayTest, SplittingAndMergingAWholeTensorKeepsItOneRun) {
  Store store;
  const Array whole = store.Whole(store.Add("t", DType::kBF16, {4, 6, 5}));
  const Array split = SplitDim(whole, 1, 3);
  EXPECT_THAT(split.shape, ElementsAre(4, 2, 3, 5));
  EXPECT_EQ(split.blocks.size(), 1u);
  EXPECT_EQ(RunCount(split), 1u);
  const Array merged = MergeDims(MergeDims(split, 1), 0);
  EXPECT_THAT(merged.shape, ElementsAre(24, 5));
  EXPECT_EQ(merged.blocks.size(), 1u);
  EXPECT_EQ(store.Bytes(merged), store.bytes[0]);
}

TEST(ArrayTest, ABlockThatBeginsAndEndsInsideRowsIsSplitInThree) {
  Store store;
  const uint32_t a = store.Add("a", DType::kU8, {3});
  const uint32_t b = store.Add("b", DType::kU8, {14});
  const uint32_t c = store.Add("c", DType::kU8, {3});
  const Array joined = Concatenate(std::vector{store.Whole(a), store.Whole(b), store.Whole(c)}, 0);
  const Array split = SplitDim(joined, 0, 5);
  EXPECT_EQ(split.blocks.size(), 5u);  // 3 | 2 + two rows + 2 | 3
  const Dense dense = test::DenseConcatenate({store.Elements(a), store.Elements(b), store.Elements(c)}, 0);
  ExpectSame(store, {split, test::DenseSplit(dense, 0, 5)});
  ExpectSame(store, {SwapDims(split, 0, 1), test::DenseSwap(test::DenseSplit(dense, 0, 5), 0, 1)});
}

TEST(ArrayTest, ABlockWithinOneRowStaysOneBlock) {
  Store store;
  const Array parts = Concatenate(
      std::vector{store.Whole(store.Add("a", DType::kU8, {1})), store.Whole(store.Add("b", DType::kU8, {3})),
                  store.Whole(store.Add("c", DType::kU8, {2}))},
      0);
  const Array split = SplitDim(parts, 0, 6);
  EXPECT_THAT(split.shape, ElementsAre(1, 6));
  EXPECT_EQ(split.blocks.size(), 3u);
  EXPECT_EQ(store.Bytes(split), store.bytes[0] + store.bytes[1] + store.bytes[2]);
}

TEST(ArrayTest, SwappingTwiceIsWhatItWas) {
  Store store;
  const Array whole = store.Whole(store.Add("t", DType::kF32, {3, 4, 5}));
  EXPECT_NE(store.Bytes(SwapDims(whole, 0, 2)), store.bytes[0]);
  EXPECT_EQ(store.Bytes(SwapDims(SwapDims(whole, 0, 2), 0, 2)), store.bytes[0]);
}

TEST(ArrayTest, SwappingASizeOneDimensionMovesNothing) {
  Store store;
  const Array whole = store.Whole(store.Add("t", DType::kF32, {3, 1, 5}));
  EXPECT_EQ(RunCount(SwapDims(whole, 0, 1)), 1u);
  EXPECT_EQ(store.Bytes(SwapDims(whole, 0, 1)), store.bytes[0]);
}

TEST(ArrayTest, EmptyDimensionsAreSplitMergedAndSwapped) {
  Store store;
  const Array whole = store.Whole(store.Add("t", DType::kF32, {0, 4}));
  EXPECT_THAT(SplitDim(whole, 0, 3).shape, ElementsAre(0, 3, 4));
  EXPECT_THAT(MergeDims(whole, 0).shape, ElementsAre(0));
  EXPECT_THAT(SwapDims(whole, 0, 1).shape, ElementsAre(4, 0));
  EXPECT_EQ(RunCount(SplitDim(whole, 0, 3)), 0u);
  // A tensor without elements still says which stored tensor it is of: its shard follows from that.
  EXPECT_THAT(Select(SplitDim(whole, 0, 3), 1, 2).blocks, testing::Not(IsEmpty()));
  EXPECT_THAT(Slice(MergeDims(SwapDims(whole, 0, 1), 0), 0, 0, 0).blocks, testing::Not(IsEmpty()));
}

TEST(ArrayTest, ATransposedTensorHasARunForEachElement) {
  Store store;
  const Array swapped = SwapDims(store.Whole(store.Add("t", DType::kBF16, {6, 7})), 0, 1);
  EXPECT_EQ(RunCount(swapped), 42u);
  const auto runs = Runs(swapped);
  ASSERT_TRUE(runs.ok());
  EXPECT_EQ(runs->size(), 42u);
}

TEST(ArrayTest, RunsOfDifferentStepsAreNotJoined) {
  Store store;
  const Array whole = store.Whole(store.Add("t", DType::kU8, {6}));
  const auto runs = Runs(Concatenate(std::vector{WithStep(Slice(whole, 0, 0, 2), 1), WithStep(Slice(whole, 0, 2, 1), 2),
                                                 WithStep(Slice(whole, 0, 3, 1), 2), Slice(whole, 0, 4, 2)},
                                     0));
  ASSERT_TRUE(runs.ok());
  ASSERT_EQ(runs->size(), 3u);
  EXPECT_EQ((*runs)[0].step, 1u);
  EXPECT_EQ((*runs)[1].step, 2u);
  EXPECT_EQ((*runs)[1].bytes, 2u);
  EXPECT_EQ((*runs)[2].step, 0u);
}

// Random operations on views and on plain lists of elements side by side.
class RandomWalk {
 public:
  RandomWalk(uint32_t seed, DType dtype, const std::vector<uint64_t>& unit)
      : random_(seed), dtype_(dtype), unit_(unit) {
    std::vector<uint64_t> shape(Below(4));
    for (uint64_t& size : shape) size = Below(5);
    shape.insert(shape.end(), unit_.begin(), unit_.end());
    pair_ = NewTensor(shape);
  }

  void Step() {
    switch (Below(8)) {
      case 0:
        return DoSlice();
      case 1:
        return DoSelect();
      case 2:
        return DoShuffle();
      case 3:
        return DoConcatenate();
      case 4:
        return DoSplit();
      case 5:
        return DoMerge();
      case 6:
        return DoSwap();
      default:
        return DoStack();
    }
  }

  const Store& store() const { return store_; }
  const Pair& pair() const { return pair_; }

 private:
  uint64_t Below(uint64_t limit) { return std::uniform_int_distribution<uint64_t>(0, limit - 1)(random_); }

  Pair NewTensor(const std::vector<uint64_t>& shape) {
    const uint32_t tensor = store_.Add(std::to_string(store_.bytes.size()), dtype_, shape);
    return {store_.Whole(tensor), store_.Elements(tensor)};
  }

  // A dimension to work on; the trailing ones of `unit` stay whole, so that sub-byte elements keep their bytes.
  std::optional<size_t> Dim() {
    const size_t free = pair_.view.shape.size() - unit_.size();
    return free == 0 ? std::nullopt : std::optional<size_t>(Below(free));
  }

  void DoSlice() {
    const auto dim = Dim();
    if (!dim) return;
    const uint64_t begin = Below(pair_.view.shape[*dim] + 1);
    const uint64_t length = Below(pair_.view.shape[*dim] - begin + 1);
    pair_ = {Slice(pair_.view, *dim, begin, length), test::DenseSlice(pair_.dense, *dim, begin, length)};
  }

  void DoSelect() {
    const auto dim = Dim();
    if (!dim || pair_.view.shape[*dim] == 0) return;
    const uint64_t index = Below(pair_.view.shape[*dim]);
    pair_ = {Select(pair_.view, *dim, index), test::DenseSelect(pair_.dense, *dim, index)};
  }

  // Cuts the array and puts the parts together in another order.
  void DoShuffle() {
    const auto dim = Dim();
    if (!dim) return;
    std::vector<uint64_t> cuts = {0, pair_.view.shape[*dim]};
    for (uint64_t i = Below(3); i > 0; --i) cuts.push_back(Below(pair_.view.shape[*dim] + 1));
    std::sort(cuts.begin(), cuts.end());
    std::vector<size_t> order(cuts.size() - 1);
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::shuffle(order.begin(), order.end(), random_);
    std::vector<Array> views;
    std::vector<Dense> denses;
    for (const size_t i : order) {
      views.push_back(Slice(pair_.view, *dim, cuts[i], cuts[i + 1] - cuts[i]));
      denses.push_back(test::DenseSlice(pair_.dense, *dim, cuts[i], cuts[i + 1] - cuts[i]));
    }
    pair_ = {Concatenate(views, *dim), test::DenseConcatenate(denses, *dim)};
  }

  void DoConcatenate() {
    const auto dim = Dim();
    if (!dim) return;
    auto shape = pair_.view.shape;
    shape[*dim] = Below(4);
    const Pair other = NewTensor(shape);
    pair_ = {Concatenate(std::vector{other.view, pair_.view, other.view}, *dim),
             test::DenseConcatenate({other.dense, pair_.dense, other.dense}, *dim)};
  }

  void DoStack() {
    // Stacks of stacks grow without end.
    if (pair_.view.shape.size() > 5 || pair_.dense.values.size() > 5000) return;
    const size_t dim = Below(pair_.view.shape.size() - unit_.size() + 1);
    const Pair other = NewTensor(pair_.view.shape);
    pair_ = {Stack(std::vector{pair_.view, other.view}, dim), test::DenseStack({pair_.dense, other.dense}, dim)};
  }

  void DoSplit() {
    const auto dim = Dim();
    if (!dim || pair_.view.shape.size() > 6) return;
    const uint64_t size = pair_.view.shape[*dim];
    std::vector<uint64_t> divisors;
    for (uint64_t inner = 1; inner <= std::max<uint64_t>(size, 3); ++inner) {
      if (size % inner == 0) divisors.push_back(inner);
    }
    const uint64_t inner = divisors[Below(divisors.size())];
    pair_ = {SplitDim(pair_.view, *dim, inner), test::DenseSplit(pair_.dense, *dim, inner)};
  }

  void DoMerge() {
    const size_t free = pair_.view.shape.size() - unit_.size();
    if (free < 2) return;
    const size_t dim = Below(free - 1);
    pair_ = {MergeDims(pair_.view, dim), test::DenseMerge(pair_.dense, dim)};
  }

  void DoSwap() {
    const auto a = Dim();
    const auto b = Dim();
    if (!a) return;
    pair_ = {SwapDims(pair_.view, *a, *b), test::DenseSwap(pair_.dense, *a, *b)};
  }

  std::mt19937 random_;
  Store store_;
  DType dtype_;
  std::vector<uint64_t> unit_;
  Pair pair_;
};

// RunCount says how many copies there are before neighbours are joined: never fewer than are left afterwards.
void ExpectRunCountAtLeastReal(const Array& view) {
  const auto runs = Runs(view);
  ASSERT_TRUE(runs.ok());
  EXPECT_GE(RunCount(view), runs->size());
  // Each block's own runs are its count exactly, unless some of them touch.
  for (const Block& block : view.blocks) {
    const Array alone{view.dtype, view.shape, {block}, {}};
    const auto own = Runs(alone);
    ASSERT_TRUE(own.ok());
    EXPECT_GE(RunCount(alone), own->size());
    EXPECT_EQ(RunCount(alone) == 0, own->empty());
  }
}

TEST(ArrayTest, RandomOperationsMoveTheSameElementsAsPlainLists) {
  for (uint32_t seed = 0; seed < 1500; ++seed) {
    SCOPED_TRACE(seed);
    const DType dtype = std::vector{DType::kU8, DType::kBF16, DType::kF32}[seed % 3];
    RandomWalk walk(seed, dtype, {});
    for (int step = 0; step < 8; ++step) walk.Step();
    ExpectSame(walk.store(), walk.pair());
    ExpectRunCountAtLeastReal(walk.pair().view);
    if (HasFailure()) return;
  }
}

TEST(ArrayTest, RandomOperationsOnWholeBytesMoveSubByteElements) {
  for (uint32_t seed = 0; seed < 600; ++seed) {
    SCOPED_TRACE(seed);
    RandomWalk walk(seed, seed % 2 == 0 ? DType::kF4 : DType::kF6E2M3, {4});
    for (int step = 0; step < 8; ++step) walk.Step();
    ExpectSame(walk.store(), walk.pair());
    ExpectRunCountAtLeastReal(walk.pair().view);
    if (HasFailure()) return;
  }
}

TEST(ArrayTest, RandomCutsOfSubByteElementsAreRightOrRefused) {
  std::mt19937 random(3);
  int right = 0;
  int refused = 0;
  for (int round = 0; round < 2000; ++round) {
    Store store;
    const uint32_t t = store.Add(std::to_string(round), DType::kF4, {2 + random() % 3, 2 + 2 * (random() % 4)});
    const size_t dim = random() % 2;
    const uint64_t size = store.Whole(t).shape[dim];
    const uint64_t begin = random() % size;
    const uint64_t length = random() % (size - begin) + 1;
    const Array view = Slice(store.Whole(t), dim, begin, length);
    if (const auto runs = Runs(view); !runs) {
      ++refused;
      EXPECT_TRUE(dim == 1 && (begin % 2 != 0 || length % 2 != 0));
    } else {
      ++right;
      EXPECT_EQ(store.Assemble(*runs), test::DenseSlice(store.Elements(t), dim, begin, length).ToBytes(4));
    }
  }
  EXPECT_GT(right, 100);
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace quantport
