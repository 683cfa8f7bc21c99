#include "exec/gather.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <random>

#include "exec/copy.h"
#include "io/local_storage.h"
#include "support/checkpoint_builder.h"
#include "unit/dense.h"

namespace quantport {
namespace {

namespace fs = std::filesystem;

using test::Dense;
using test::Store;
using test::TempDir;

// A store whose tensors lie in two files, none at the start of one.
class Files {
 public:
  explicit Files(const Store& store) {
    std::string contents[2] = {"head", "other head"};
    std::vector<std::unique_ptr<const ByteSource>> opened;
    for (size_t i = 0; i < store.bytes.size(); ++i) {
      std::string& file = contents[i % 2];
      const TensorInfo& info = store.table.tensors[i].info;
      tensors.push_back({info.name, static_cast<uint32_t>(i % 2), file.size(), store.bytes[i].size(), info.dtype});
      file += store.bytes[i] + "gap";
    }
    for (size_t f = 0; f < 2; ++f) {
      paths.push_back(dir_ / std::to_string(f));
      test::WriteFile(paths.back(), contents[f]);
      opened.push_back(std::move(*LocalStorage().OpenFile(paths.back())));
    }
    sources = Sources(std::move(opened));
  }

  // Bytes [begin, begin + count) of the array.
  std::string Gathered(const Array& array, uint64_t begin, uint64_t count) const {
    std::string out(count, '?');
    MergedScales scales;
    const auto status = Gather(array, tensors, sources, &scales, begin, std::as_writable_bytes(std::span(out)));
    EXPECT_TRUE(status.ok()) << status.errors()[0].ToString();
    return out;
  }

  std::vector<fs::path> paths;
  std::vector<SourceTensor> tensors;
  Sources sources;

 private:
  TempDir dir_;
};

struct Pair {
  Array view;
  Dense dense;
};

// A view that no copy of a few runs gives: parts of two tensors side by side, permuted, split and merged again.
Pair RandomView(std::mt19937* random, DType dtype, Store* store) {
  const auto below = [&](uint64_t limit) { return (*random)() % limit; };
  const uint64_t width = below(4) + 1;
  const uint32_t a = store->Add("a", dtype, {below(4) + 1, width, below(5) + 1});
  std::vector<uint64_t> other = store->table.tensors[a].info.shape;
  other[0] = below(3) + 1;
  const uint32_t b = store->Add("b", dtype, other);
  Pair pair{Concatenate(std::vector{store->Whole(a), store->Whole(b), store->Whole(a)}, 0),
            test::DenseConcatenate({store->Elements(a), store->Elements(b), store->Elements(a)}, 0)};
  for (int step = 0; step < 4; ++step) {
    const size_t rank = pair.view.shape.size();
    const size_t dim = below(rank);
    const size_t second = below(rank);
    switch (below(4)) {
      case 0:
        pair = {SwapDims(pair.view, dim, second), test::DenseSwap(pair.dense, dim, second)};
        break;
      case 1:
        if (rank < 2 || dim + 1 == rank) break;
        pair = {MergeDims(pair.view, dim), test::DenseMerge(pair.dense, dim)};
        break;
      case 2: {
        const uint64_t inner = below(pair.view.shape[dim]) + 1;
        if (pair.view.shape[dim] % inner != 0) break;
        pair = {SplitDim(pair.view, dim, inner), test::DenseSplit(pair.dense, dim, inner)};
        break;
      }
      default: {
        const uint64_t begin = below(pair.view.shape[dim]);
        const uint64_t length = below(pair.view.shape[dim] - begin) + 1;
        pair = {Slice(pair.view, dim, begin, length), test::DenseSlice(pair.dense, dim, begin, length)};
      }
    }
  }
  return pair;
}

TEST(GatherTest, EveryByteRangeOfARandomViewIsThatOfThePlainList) {
  for (const DType dtype : {DType::kU8, DType::kBF16, DType::kF32, DType::kI64}) {
    for (uint32_t seed = 0; seed < 150; ++seed) {
      SCOPED_TRACE(fmt::format("{} {}", DTypeName(dtype), seed));
      std::mt19937 random(seed);
      Store store;
      const Pair pair = RandomView(&random, dtype, &store);
      ASSERT_EQ(pair.view.shape, pair.dense.shape);
      const Files files(store);
      const std::string want = pair.dense.ToBytes(DTypeBits(dtype));
      ASSERT_EQ(files.Gathered(pair.view, 0, want.size()), want);
      for (int i = 0; i < 40; ++i) {
        const uint64_t begin = random() % want.size();
        const uint64_t count = random() % (want.size() - begin) + 1;
        ASSERT_EQ(files.Gathered(pair.view, begin, count), want.substr(begin, count)) << begin << " " << count;
      }
    }
  }
}

TEST(GatherTest, EveryRangeOfOneTransposedTensorIncludingThoseInsideElements) {
  Store store;
  const uint32_t t = store.Add("t", DType::kF32, {3, 4, 2});
  const Array view = SwapDims(store.Whole(t), 0, 2);
  const std::string want = test::DenseSwap(store.Elements(t), 0, 2).ToBytes(32);
  const Files files(store);
  for (uint64_t begin = 0; begin < want.size(); ++begin) {
    for (uint64_t count = 0; begin + count <= want.size(); ++count)
      ASSERT_EQ(files.Gathered(view, begin, count), want.substr(begin, count)) << begin << " " << count;
  }
}

TEST(GatherTest, AScalarAndALiteralAreWholeRanges) {
  Store store;
  const uint32_t t = store.Add("t", DType::kF32, {});
  const Files files(store);
  EXPECT_EQ(files.Gathered(store.Whole(t), 0, 4), store.bytes[t]);
  EXPECT_EQ(files.Gathered(store.Whole(t), 1, 2), store.bytes[t].substr(1, 2));
  Array literal{DType::kU8, {3}, {}, {std::byte{7}, std::byte{8}, std::byte{9}}};
  EXPECT_EQ(files.Gathered(literal, 1, 2), "\x08\x09");
}

TEST(GatherTest, ASourceThatEndsTooEarlyIsAnError) {
  Store store;
  const uint32_t t = store.Add("t", DType::kU8, {64, 64});
  const Files files(store);
  fs::resize_file(files.paths[0], 100);
  std::vector<std::byte> out(4096);
  MergedScales scales;
  const auto status = Gather(SwapDims(store.Whole(t), 0, 1), files.tensors, files.sources, &scales, 0, out);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.errors()[0].kind, ErrorKind::kIo);
}

// ---- through files --------------------------------------------------------------------------------------------------

TEST(GatherTest, AnIndivisiblyLargeTransposedTensorComesOutWhole) {
  constexpr uint64_t kRows = 3001;
  constexpr uint64_t kColumns = 4099;  // 23 MiB of two bytes each, no border of which is one of 4 MiB
  Store store;
  const uint32_t t = store.Add("t", DType::kBF16, {kRows, kColumns});
  const Files files(store);
  Plan plan;
  for (const fs::path& path : files.paths) plan.sources.push_back({path});
  plan.tensors = files.tensors;
  const std::string header = "an odd header";
  const uint64_t bytes = store.bytes[t].size();
  PlannedTensor gathered{{"t", DType::kBF16, {kColumns, kRows}, 0, bytes}, FormatId::kPlain, {}, {}};
  gathered.gathered = SwapDims(store.Whole(t), 0, 1);
  PlannedTensor copied{{"u", DType::kU8, {5}, bytes, bytes + 5}, FormatId::kPlain, {{t, 3, 0, 5, 0}}, {}};
  plan.files.push_back({"out", header, {gathered, copied}, header.size() + bytes + 5});
  std::string want = header;
  want.reserve(header.size() + bytes + 5);
  for (uint64_t column = 0; column < kColumns; ++column) {
    for (uint64_t row = 0; row < kRows; ++row) want.append(store.bytes[t], (row * kColumns + column) * 2, 2);
  }
  want.append(store.bytes[t], 3, 5);
  for (const int threads : {1, 3}) {
    const TempDir out;
    const auto report =
        WriteFiles(plan, LocalStorage(), OpenOutputFolder(out.path()).get(), "", {{threads, {}, nullptr}});
    ASSERT_TRUE(report.ok()) << report.errors()[0].ToString();
    EXPECT_TRUE(report->rescaled.empty());
    // Not EXPECT_EQ: it would print megabytes.
    EXPECT_TRUE(test::ReadFile(out / "out") == want) << threads;
  }
}

}  // namespace
}  // namespace quantport
