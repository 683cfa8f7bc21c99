// Arrays as plain lists of elements, to hold views of stored bytes against, and the bytes that a view stands for.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "layout/array.h"
#include "safetensors/table.h"
#include "support/checkpoint_builder.h"

namespace quantport::test {

// A row-major array that holds its elements, and does everything the slow and obvious way.
struct Dense {
  std::vector<uint64_t> shape;
  std::vector<uint64_t> values;

  static Dense FromBytes(const std::string& bytes, const std::vector<uint64_t>& shape, int bits) {
    Dense out{shape, {}};
    uint64_t count = 1;
    for (const uint64_t size : shape) count *= size;
    for (uint64_t i = 0; i < count * static_cast<uint64_t>(bits); ++i) {
      if (i % static_cast<uint64_t>(bits) == 0) out.values.push_back(0);
      const uint64_t bit = static_cast<unsigned char>(bytes[i / 8]) >> (i % 8) & 1;
      out.values.back() |= bit << (i % static_cast<uint64_t>(bits));
    }
    return out;
  }

  std::string ToBytes(int bits) const {
    std::string bytes((values.size() * static_cast<size_t>(bits) + 7) / 8, '\0');
    for (size_t i = 0; i < values.size() * static_cast<size_t>(bits); ++i) {
      const uint64_t bit = values[i / static_cast<size_t>(bits)] >> (i % static_cast<size_t>(bits)) & 1;
      bytes[i / 8] = static_cast<char>(static_cast<unsigned char>(bytes[i / 8]) | bit << (i % 8));
    }
    return bytes;
  }

  uint64_t At(const std::vector<uint64_t>& index) const {
    uint64_t flat = 0;
    for (size_t dim = 0; dim < shape.size(); ++dim) flat = flat * shape[dim] + index[dim];
    return values[flat];
  }
};

// An array of this shape whose elements are what `element` says of their indices.
template <typename F>
Dense MakeDense(const std::vector<uint64_t>& shape, F element) {
  Dense out{shape, {}};
  uint64_t count = 1;
  for (const uint64_t size : shape) count *= size;
  for (uint64_t flat = 0; flat < count; ++flat) {
    std::vector<uint64_t> index(shape.size());
    uint64_t rest = flat;
    for (size_t dim = shape.size(); dim-- > 0; rest /= shape[dim]) index[dim] = rest % shape[dim];
    out.values.push_back(element(std::move(index)));
  }
  return out;
}

inline Dense DenseSlice(const Dense& array, size_t dim, uint64_t begin, uint64_t length) {
  auto shape = array.shape;
  shape[dim] = length;
  return MakeDense(shape, [&](std::vector<uint64_t> index) {
    index[dim] += begin;
    return array.At(index);
  });
}

inline Dense DenseSelect(const Dense& array, size_t dim, uint64_t entry) {
  auto shape = array.shape;
  shape.erase(shape.begin() + static_cast<std::ptrdiff_t>(dim));
  return MakeDense(shape, [&](std::vector<uint64_t> index) {
    index.insert(index.begin() + static_cast<std::ptrdiff_t>(dim), entry);
    return array.At(index);
  });
}

inline Dense DenseConcatenate(const std::vector<Dense>& arrays, size_t dim) {
  auto shape = arrays[0].shape;
  shape[dim] = 0;
  for (const Dense& array : arrays) shape[dim] += array.shape[dim];
  return MakeDense(shape, [&](std::vector<uint64_t> index) {
    size_t i = 0;
    while (index[dim] >= arrays[i].shape[dim]) index[dim] -= arrays[i++].shape[dim];
    return arrays[i].At(index);
  });
}

inline Dense DenseStack(const std::vector<Dense>& arrays, size_t dim) {
  auto shape = arrays[0].shape;
  shape.insert(shape.begin() + static_cast<std::ptrdiff_t>(dim), arrays.size());
  return MakeDense(shape, [&](std::vector<uint64_t> index) {
    const uint64_t i = index[dim];
    index.erase(index.begin() + static_cast<std::ptrdiff_t>(dim));
    return arrays[i].At(index);
  });
}

inline Dense DenseSplit(Dense array, size_t dim, uint64_t inner) {
  array.shape[dim] /= inner;
  array.shape.insert(array.shape.begin() + static_cast<std::ptrdiff_t>(dim) + 1, inner);
  return array;
}

inline Dense DenseMerge(Dense array, size_t dim) {
  array.shape[dim] *= array.shape[dim + 1];
  array.shape.erase(array.shape.begin() + static_cast<std::ptrdiff_t>(dim) + 1);
  return array;
}

inline Dense DenseSwap(const Dense& array, size_t a, size_t b) {
  auto shape = array.shape;
  std::swap(shape[a], shape[b]);
  return MakeDense(shape, [&](std::vector<uint64_t> index) {
    std::swap(index[a], index[b]);
    return array.At(index);
  });
}

// Stored tensors with bytes, as one shard would hold them.
struct Store {
  TensorTable table{{{"model.safetensors", 0, 0, {}}}, {}};
  std::vector<std::string> bytes;  // of each tensor

  uint32_t Add(const std::string& name, DType dtype, const std::vector<uint64_t>& shape) {
    const uint64_t size = TensorBytes(dtype, shape).value();
    const uint64_t begin = table.tensors.empty() ? 0 : table.tensors.back().info.end;
    table.tensors.push_back({{name, dtype, shape, begin, begin + size}, 0});
    bytes.push_back(FillBytes(name, size));
    return static_cast<uint32_t>(bytes.size() - 1);
  }

  Array Whole(uint32_t tensor) const {
    return WholeTensor(tensor, table.tensors[tensor].info.dtype, table.tensors[tensor].info.shape);
  }

  Dense Elements(uint32_t tensor) const {
    const TensorInfo& info = table.tensors[tensor].info;
    return Dense::FromBytes(bytes[tensor], info.shape, DTypeBits(info.dtype));
  }

  // The bytes that `runs` put together. Every byte of the target must be written, once and in order, by as few runs
  // as possible.
  std::string Assemble(const std::vector<Run>& runs) const {
    std::string out;
    const Run* last = nullptr;
    for (const Run& run : runs) {
      EXPECT_EQ(run.target, out.size()) << "a hole or an overlap";
      EXPECT_GT(run.bytes, 0u);
      EXPECT_LE(run.source + run.bytes, bytes[run.tensor].size());
      EXPECT_FALSE(last != nullptr && last->tensor == run.tensor && last->source + last->bytes == run.source)
          << "neighbours not joined";
      out += bytes[run.tensor].substr(run.source, run.bytes);
      last = &run;
    }
    return out;
  }

  // The bytes of a view; a view that is no whole bytes fails the test.
  std::string Bytes(const Array& array) const {
    const auto runs = Runs(array);
    if (!runs) {
      ADD_FAILURE() << runs.errors()[0].ToString();
      return {};
    }
    return Assemble(*runs);
  }
};

}  // namespace quantport::test
