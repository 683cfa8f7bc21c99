// Quantizing end to end on several threads; under ThreadSanitizer with the rest of what runs in threads.
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <random>

#include "quantport/quantize.h"
#include "support/checkpoint_builder.h"

namespace quantport {
namespace {

namespace fs = std::filesystem;

// BF16 numbers around 2^-6, of either sign.
std::string Numbers(uint32_t seed, size_t count) {
  std::mt19937 random(seed);
  std::string bytes;
  for (size_t i = 0; i < count; ++i) {
    const auto bits = static_cast<uint32_t>(random());
    bytes += static_cast<char>(bits & 0xFF);
    bytes += static_cast<char>((bits >> 8 & 0x80) | 0x3C | (bits >> 16 & 3));
  }
  return bytes;
}

// A class that nobody knows, so that names stand as they are: groups of three, of two and of one, and a norm.
void WriteHub(const fs::path& folder, uint64_t rows, uint64_t columns) {
  std::vector<test::TestTensor> tensors;
  for (const char* name : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                           "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}) {
    const auto seed = static_cast<uint32_t>(tensors.size());
    tensors.push_back(
        {std::string("layers.0.") + name + ".weight", "BF16", {rows, columns}, Numbers(seed, rows * columns)});
  }
  tensors.push_back({"norm.weight", "BF16", {columns}, {}});
  test::WriteCheckpoint(folder, R"({"architectures": ["Nobody"], "model_type": "nobody"})", tensors);
}

QuantizeOptions Options(const fs::path& folder, const std::string& out, const std::string& recipe, int threads) {
  QuantizeOptions options;
  options.input = folder / "hub";
  options.output = folder / out;
  options.recipe.name = recipe;
  options.threads = threads;
  return options;
}

// Three stretches a weight, whose errors would add up differently in another order.
TEST(QuantizeRunTest, GivesTheSameFilesAndErrorsOnOneThreadAndOnEight) {
  const test::TempDir folder;
  WriteHub(folder.path() / "hub", 4352, 1024);
  for (const std::string recipe : {"w4a16_nvfp4", "mxfp8", "fp8_per_channel_per_token"}) {
    auto options = Options(folder.path(), recipe + "1", recipe, 1);
    const auto alone = Quantize(options);
    ASSERT_TRUE(alone) << recipe;
    options = Options(folder.path(), recipe + "8", recipe, 8);
    uint64_t last = 0;
    options.progress = [&](uint64_t done, uint64_t total) {
      EXPECT_LE(last, done);
      EXPECT_LE(done, total);
      last = done;
    };
    const auto report = Quantize(options);
    ASSERT_TRUE(report) << report.errors().front().ToString();
    ASSERT_EQ(report->weights.size(), 7u);
    for (size_t i = 0; i < 7; ++i) {
      EXPECT_EQ(report->weights[i].name, alone->weights[i].name);
      EXPECT_EQ(report->weights[i].sqnr_db, alone->weights[i].sqnr_db);
      EXPECT_EQ(report->weights[i].max_error, alone->weights[i].max_error);
      EXPECT_EQ(report->weights[i].clipped_share, alone->weights[i].clipped_share);
    }
    EXPECT_EQ(test::ReadFile(folder.path() / (recipe + "1") / "model.safetensors"),
              test::ReadFile(folder.path() / (recipe + "8") / "model.safetensors"));
  }
}

TEST(QuantizeRunTest, StopsOnRequestAndLeavesNothing) {
  const test::TempDir folder;
  WriteHub(folder.path() / "hub", 2304, 1024);
  auto options = Options(folder.path(), "out", "w4a16_nvfp4", 4);
  std::atomic<bool> cancel = false;
  options.cancel = &cancel;
  options.progress = [&](uint64_t, uint64_t) { cancel = true; };
  const auto report = Quantize(options);
  ASSERT_FALSE(report);
  EXPECT_EQ(report.errors().front().kind, ErrorKind::kCancelled);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 1);
}

// While the rest is copied, while matrices are computed, and when all is done.
TEST(QuantizeRunTest, WhatAProgressFunctionThrowsComesOutAndNothingIsLeft) {
  const test::TempDir folder;
  WriteHub(folder.path() / "hub", 2304, 1024);
  uint64_t calls = 0;
  auto options = Options(folder.path(), "counted", "w4a16_nvfp4", 4);
  options.progress = [&](uint64_t, uint64_t) { ++calls; };
  ASSERT_TRUE(Quantize(options));
  for (const uint64_t fails : {uint64_t{1}, calls / 2, calls}) {
    options = Options(folder.path(), "out", "w4a16_nvfp4", 4);
    uint64_t call = 0;
    options.progress = [&](uint64_t, uint64_t) {
      if (++call == fails) throw std::runtime_error("nobody watches");
    };
    EXPECT_THROW((void)Quantize(options), std::runtime_error) << fails;
    EXPECT_EQ(call, fails) << "it is not called again";
    EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 2);
  }
}

}  // namespace
}  // namespace quantport
