// Runs chains of operations on stored weights, for tests.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "plan/operations.h"
#include "unit/error_lines.h"
#include "unit/linears.h"

namespace quantport::test {
using Patterns = std::vector<std::string>;

// One run of operations; the shapes are those of the targets, where they are known.
struct Chain {
  Patterns sources;
  Patterns targets;
  std::vector<std::optional<Shape>> shapes = {};
  bool loading = false;
  SharedScales shared = {};

  Result<Strands> Run(Strands strands, const std::vector<Operation>& operations) {
    std::vector<const Shape*> known;
    for (const auto& shape : shapes) known.push_back(shape ? &*shape : nullptr);
    return RunOperations(std::move(strands), operations, {&sources, &targets, known, loading, &shared});
  }
};

inline Entry Whole(LogicalWeight weight) { return {std::move(weight), std::nullopt, std::nullopt, std::nullopt}; }

inline Entry Listed(LogicalWeight weight, uint64_t index) {
  return {std::move(weight), std::nullopt, index, std::nullopt};
}

inline Entry Piece(LogicalWeight weight, uint64_t index, uint64_t part, uint64_t parts) {
  return {std::move(weight), ExpertPiece{index, part, parts}, std::nullopt, size_t{0}};
}

inline Strands Must(Result<Strands> result) {
  if (!result) {
    ADD_FAILURE() << result.errors()[0].ToString();
    return {};
  }
  return std::move(*result);
}

inline std::vector<std::optional<uint64_t>> Indices(const std::vector<Entry>& entries) {
  std::vector<std::optional<uint64_t>> indices;
  for (const Entry& entry : entries) indices.push_back(entry.index);
  return indices;
}

// Runs operations there and their reverses back, and expects one weight that is the first one.
inline void ExpectUndone(const LinearStore& store, const LogicalWeight& weight, std::vector<Operation> operations,
                         const Patterns& source, const Patterns& targets) {
  Chain load{source, targets};
  load.loading = true;
  Strands strands = Must(load.Run({{Whole(weight)}}, operations));
  std::reverse(operations.begin(), operations.end());
  for (Operation& operation : operations) operation = ReverseOperation(operation);
  Chain save{targets, source};
  strands = Must(save.Run(std::move(strands), operations));
  ASSERT_THAT(strands, testing::SizeIs(1));
  ASSERT_THAT(strands[0], testing::SizeIs(1));
  store.ExpectSame(strands[0][0].weight, weight);
}

}  // namespace quantport::test
