// What was written is held against the plan, tensor by tensor.
#include "verify/written.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint/checkpoint.h"
#include "support/checkpoint_builder.h"
#include "unit/error_lines.h"

namespace quantport {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr const char* kFirst = "model-00001-of-00002.safetensors";
constexpr const char* kSecond = "model-00002-of-00002.safetensors";

// Two shards with a tensor each, at the same place in either.
class WrittenTest : public testing::Test {
 protected:
  void SetUp() override {
    test::WriteCheckpoint(folder_.path(), "{}", {{"a", "U8", {4}, {}}, {"b", "U8", {4}, {}}}, 2);
    plan_.files = {{kFirst, {}, {Planned("a")}}, {kSecond, {}, {Planned("b")}}};
  }
  static PlannedTensor Planned(const std::string& name) {
    return {{name, DType::kU8, {4}, 0, 4}, FormatId::kPlain, {}, {}};
  }
  std::vector<std::string> Errors() { return test::ErrorLines(VerifyWritten(plan_, folder_.path(), false).errors()); }

  test::TempDir folder_;
  Plan plan_;
};

TEST_F(WrittenTest, WhatIsAsPlannedPasses) { EXPECT_TRUE(VerifyWritten(plan_, folder_.path(), false).ok()); }

TEST_F(WrittenTest, ATensorInAnotherShardIsNamed) {
  std::swap(plan_.files[0].tensors, plan_.files[1].tensors);
  EXPECT_THAT(Errors(), ElementsAre("VerificationError a: written otherwise than planned",
                                    "VerificationError b: written otherwise than planned"));
}

TEST_F(WrittenTest, ATensorOfAnotherDtypeShapeOrPlaceIsNamed) {
  TensorInfo& info = plan_.files[1].tensors[0].info;
  const TensorInfo right = info;
  for (const TensorInfo& other : {TensorInfo{"b", DType::kI8, {4}, 0, 4}, TensorInfo{"b", DType::kU8, {2, 2}, 0, 4},
                                  TensorInfo{"b", DType::kU8, {4}, 4, 4}, TensorInfo{"b", DType::kU8, {4}, 0, 8}}) {
    info = other;
    EXPECT_THAT(Errors(), ElementsAre("VerificationError b: written otherwise than planned"));
  }
  info = right;
  EXPECT_TRUE(VerifyWritten(plan_, folder_.path(), false).ok());
}

TEST_F(WrittenTest, ATensorThatIsMissingOrTooManyIsNoticed) {
  plan_.files[1].tensors.push_back(Planned("c"));
  EXPECT_THAT(Errors(), ElementsAre("VerificationError 2 tensors written, 3 planned"));
  plan_.files[1].tensors.clear();
  EXPECT_THAT(Errors(), ElementsAre("VerificationError b: written, but not planned",
                                    "VerificationError 2 tensors written, 1 planned"));
}

}  // namespace
}  // namespace quantport
