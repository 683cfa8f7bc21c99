// A checkpoint of one module, by the leaves, dtypes and shapes of its tensors.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "layout/recognize.h"
#include "unit/dense.h"

namespace quantport::test {

using Shape = std::vector<uint64_t>;

struct Row {
  std::string leaf;
  DType dtype;
  Shape shape;
};

// A module named m with these tensors.
inline TensorTable Module(const std::vector<Row>& rows) {
  Store store;
  for (const Row& row : rows) store.Add("m." + row.leaf, row.dtype, row.shape);
  return store.table;
}

// The only unit of a module, or a failure.
inline WeightUnit OnlyUnit(const std::vector<Row>& rows, const RecognizeOptions& options = {}) {
  const auto units = RecognizeUnits(Module(rows), options);
  if (!units || units->size() != 1) {
    ADD_FAILURE() << (units ? std::to_string(units->size()) + " units" : units.errors()[0].ToString());
    return {};
  }
  return (*units)[0];
}

}  // namespace quantport::test
