// Memory that runs out anywhere in a public function is an error value, and whatever the function began is undone.
#include "base/memory.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <memory>

#include "quantport/quantize.h"
#include "quantport/quantport.h"
#include "quantport/state_dict.h"
#include "support/checkpoint_builder.h"
#include "support/missing_memory.h"

namespace quantport {
namespace {

namespace fs = std::filesystem;

using test::MissingMemory;
using test::TempDir;
using test::TestTensor;

constexpr size_t kPlaces = 12;
// Less is taken by nlohmann::json in its destructor too, from which no error comes out.
constexpr size_t kLarge = 32 << 10;
constexpr int kLayers = 100;
const std::string kConfig = R"({"architectures": ["MixtralForCausalLM"], "model_type": "mixtral"})";

// A hub checkpoint of so many tensors that the lists of them are large.
void WriteHub(const fs::path& folder) {
  std::vector<TestTensor> tensors;
  for (int layer = 0; layer < kLayers; ++layer) {
    const std::string block = fmt::format("model.layers.{}.block_sparse_moe.", layer);
    tensors.push_back({block + "gate.weight", "BF16", {4, 16}, {}});
    for (int expert = 0; expert < 4; ++expert) {
      for (const char* name : {"w1", "w2", "w3"})
        tensors.push_back({fmt::format("{}experts.{}.{}.weight", block, expert, name),
                           "BF16",
                           {16, 16},
                           std::string(16 * 16 * 2, '<')});
    }
  }
  test::WriteCheckpoint(folder, kConfig, tensors, 2);
}

// The errors of a call; empty where there are none.
template <typename T>
Errors ErrorsOf(const Result<T>& result) {
  return result ? Errors() : result.errors();
}

// Runs `call` with memory missing at some of the places where it takes much, from the first to the last.
// `prepare` comes before each run, and `check` after one that failed.
void ExpectErrors(
    const std::function<Errors()>& call, const std::function<void()>& prepare = [] {},
    const std::function<void()>& check = [] {}) {
  prepare();
  EXPECT_EQ(call().size(), 0u);  // what is made once in a process is there now
  prepare();
  size_t all = 0;
  {
    const MissingMemory none(0, kLarge);
    EXPECT_EQ(call().size(), 0u);
    all = none.allocations();
  }
  const size_t places = std::min(all, kPlaces);
  ASSERT_GT(places, 0u);
  size_t failed = 0;
  for (size_t i = 0; i < places; ++i) {
    const size_t place = 1 + i * all / places;
    prepare();
    Errors errors;
    {
      const MissingMemory missing(place, kLarge);
      errors = call();
    }
    if (errors.empty()) continue;  // threads may share the work in another way, and some sorts go without memory
    ++failed;
    EXPECT_EQ(errors[0].message, OutOfMemory().message) << place << " of " << all;
    check();
  }
  EXPECT_GT(failed, places / 4);
}

// The same of a function that takes little.
void ExpectErrorAtTheFirstPlace(const std::function<Errors()>& call) {
  Errors errors;
  {
    const MissingMemory missing(1, 1);
    errors = call();
  }
  ASSERT_EQ(errors.size(), 1u);
  EXPECT_EQ(errors[0].message, OutOfMemory().message);
}

class MemoryTest : public testing::Test {
 protected:
  // A hub checkpoint, the same quantized, and that with the names it has in memory.
  static void SetUpTestSuite() {
    folder_ = std::make_unique<TempDir>();
    WriteHub(Hub());
    QuantizeOptions quantize;
    quantize.input = Hub();
    quantize.output = Quantized();
    quantize.recipe.name = "w4a16_nvfp4";
    const auto quantized = Quantize(quantize);
    ASSERT_TRUE(quantized.ok()) << quantized.errors()[0].ToString();
    ApplyOptions apply;
    apply.input = Quantized();
    apply.output = Export();
    const auto applied = Apply(apply);
    ASSERT_TRUE(applied.ok()) << applied.errors()[0].ToString();
  }
  static void TearDownTestSuite() { folder_.reset(); }

  static fs::path Hub() { return *folder_ / "hub"; }
  static fs::path Quantized() { return *folder_ / "quantized"; }
  static fs::path Export() { return *folder_ / "export"; }

  void Clear() {
    for (const auto& entry : fs::directory_iterator(dir_.path())) fs::remove_all(entry.path());
  }
  void ExpectErrorsAndNothingLeft(const std::function<Errors()>& call) {
    ExpectErrors(
        call, [&] { Clear(); }, [&] { EXPECT_TRUE(fs::is_empty(dir_.path())); });
  }

  const TempDir dir_;

 private:
  static inline std::unique_ptr<TempDir> folder_;
};

TEST_F(MemoryTest, Revert) {
  RevertOptions options;
  options.input = Export();
  options.output = dir_ / "out";
  options.reference = Hub();
  ExpectErrorsAndNothingLeft([&] { return ErrorsOf(Revert(options)); });
}

TEST_F(MemoryTest, RevertInPlace) {
  RevertOptions options;
  options.input = dir_ / "export";
  options.in_place = true;
  ExpectErrors([&] { return ErrorsOf(Revert(options)); },
               [&] {
                 Clear();
                 fs::copy(Export(), options.input);
               },
               [&] {
                 for (const auto& entry : fs::directory_iterator(options.input)) {
                   const fs::path name = entry.path().filename();
                   EXPECT_TRUE(test::ReadFile(options.input / name) == test::ReadFile(Export() / name)) << name;
                 }
               });
}

TEST_F(MemoryTest, Apply) {
  ApplyOptions options;
  options.input = Quantized();
  options.output = dir_ / "out";
  ExpectErrorsAndNothingLeft([&] { return ErrorsOf(Apply(options)); });
}

TEST_F(MemoryTest, PlanRevert) {
  RevertOptions options;
  options.input = Export();
  ExpectErrors([&] { return ErrorsOf(PlanRevert(options)); });
}

TEST_F(MemoryTest, Quantize) {
  QuantizeOptions options;
  options.input = Hub();
  options.output = dir_ / "out";
  options.recipe.name = "w4a16_nvfp4";
  ExpectErrorsAndNothingLeft([&] { return ErrorsOf(Quantize(options)); });
}

TEST_F(MemoryTest, PlanQuantize) {
  QuantizeOptions options;
  options.input = Hub();
  options.recipe.name = "w4a16_nvfp4";
  ExpectErrors([&] { return ErrorsOf(PlanQuantize(options)); });
}

TEST_F(MemoryTest, Dequantize) {
  DequantizeOptions options;
  options.input = Quantized();
  options.output = dir_ / "out";
  ExpectErrorsAndNothingLeft([&] { return ErrorsOf(Dequantize(options)); });
}

TEST_F(MemoryTest, Verify) {
  VerifyOptions options;
  options.checkpoint = Quantized();
  options.reference = Hub();
  ExpectErrors([&] { return ErrorsOf(Verify(options)); });
}

TEST_F(MemoryTest, Inspect) {
  ExpectErrors([] { return ErrorsOf(Inspect(Export())); });
}

TEST_F(MemoryTest, Diff) {
  DiffOptions options;
  options.a = Export();
  options.b = Quantized();
  options.map = true;
  ExpectErrors([&] { return ErrorsOf(Diff(options)); });
}

TEST_F(MemoryTest, Rules) {
  const fs::path folder = Export();
  const std::vector<std::string> names = {"model.norm.weight"};
  ExpectErrorAtTheFirstPlace([&] { return ErrorsOf(Rules(folder)); });
  ExpectErrorAtTheFirstPlace([&] { return ErrorsOf(ExplainNames(folder, names)); });
  ExpectErrors([] { return ErrorsOf(CompareRules(Export(), Hub())); });
}

TEST_F(MemoryTest, StateDict) {
  std::vector<StateTensor> tensors;
  for (const auto& [name, tensor] : test::ReadCheckpoint(Export()))
    tensors.push_back({name, *ParseDType(tensor.dtype), tensor.shape});
  StateDictOptions options;
  options.config = test::ReadFile(Export() / "config.json");
  std::vector<StateTensor> given;
  ExpectErrors([&] { return ErrorsOf(PlanStateDict(std::move(given), options)); }, [&] { given = tensors; });
  auto plan = PlanStateDict(tensors, options);
  ASSERT_TRUE(plan.ok());
  Errors unequal = {{ErrorKind::kQuantConversionUnsupported, "scales differ", {}, {}, {}}};
  ExpectErrorAtTheFirstPlace([&] { return ErrorsOf(plan->keep_names(std::move(unequal))); });
  ExpectErrorAtTheFirstPlace([&] { return ErrorsOf(plan->rewrite_references(options.config, "config.json")); });
}

TEST_F(MemoryTest, Recover) {
  ExpectErrorAtTheFirstPlace([&] { return ErrorsOf(Recover(dir_.path())); });
}

TEST_F(MemoryTest, ASizeBeyondAnyMemoryIsTheSameError) {
  const auto status = WithinMemory([]() -> Status {
    const std::vector<std::string> names(SIZE_MAX / 16);
    return {};
  });
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.errors()[0].message, OutOfMemory().message);
}

}  // namespace
}  // namespace quantport
