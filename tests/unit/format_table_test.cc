// The table of formats, walked: every one is recognized from the tensors it stores and from no others.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "format/match.h"

namespace quantport {
namespace {

using testing::HasSubstr;

// A weight of each format. `also`: optional tensors that make it this format and no other.
struct TableCase {
  FormatId format;
  Shape shape;
  Variant variant;
  std::set<std::string> also = {};
  std::string value = "weight";  // "": a parameter without a module
  std::string state = {};        // what small tensors hold
  uint64_t bits = 0;             // as the config says
};

constexpr auto kGroups = Granularity::kGroups;

std::vector<TableCase> Cases() {
  const std::string state = R"({"blocksize": 64, "shape": [64, 128]})";
  return {
      {FormatId::kPlain, {64, 128}, {}},
      {FormatId::kNvfp4, {64, 128}, {.granularity = kGroups, .group = 16}, {"input_scale"}},
      {FormatId::kNvfp4, {64, 128}, {.granularity = kGroups, .group = 16}, {"input_scale_2"}},
      {FormatId::kNvfp4, {3, 64, 128}, {.granularity = kGroups, .group = 16, .inputs_first = true}, {"input_scale"}},
      {FormatId::kNvfp4WeightOnly, {64, 128}, {.granularity = kGroups, .group = 16}},
      {FormatId::kNvfp4Awq, {64, 128}, {.granularity = kGroups, .group = 16}},
      {FormatId::kNvfp4Svd,
       {64, 128},
       {.granularity = kGroups, .group = 16, .factors = 3},
       {"svdquant_lora_a", "svdquant_lora_b"}},
      {FormatId::kW4A8Nvfp4Fp8, {64, 128}, {.granularity = kGroups, .group = 32}, {"input_scale"}},
      {FormatId::kFp8PerTensor, {64, 128}, {}},
      {FormatId::kFp8PerTensor, {3, 256, 384}, {.scale_inv = true}},
      {FormatId::kFp8PerChannel, {64, 128}, {.granularity = Granularity::kRows}},
      {FormatId::kFp8PerChannel, {3, 64, 128}, {.granularity = Granularity::kColumns}, {}, ""},
      {FormatId::kFp8Block, {300, 200}, {.granularity = Granularity::kTiles, .tile = {128, 128}}},
      {FormatId::kFp8Group, {64, 128}, {.granularity = kGroups, .group = 64}},
      {FormatId::kMxfp8, {64, 128}, {.granularity = kGroups, .group = 32}},
      {FormatId::kMxfp8, {64, 128}, {.granularity = kGroups, .group = 32, .scale_inv = true}},
      {FormatId::kMxfp6, {64, 128}, {.granularity = kGroups, .group = 32}},
      {FormatId::kMxfp4, {64, 128}, {.granularity = kGroups, .group = 32}},
      {FormatId::kW4A8Mxfp4Fp8, {64, 128}, {.granularity = kGroups, .group = 32}, {"input_scale"}},
      {FormatId::kMxfp4Blocks, {3, 64, 128}, {.granularity = kGroups, .group = 32, .inputs_first = true}, {}, "blocks"},
      {FormatId::kFp4Block, {64, 128}, {.granularity = kGroups, .group = 32, .scale_inv = true}},
      {FormatId::kInt4, {64, 256}, {.granularity = kGroups, .group = 128, .bits = 4}},
      {FormatId::kW4A8Awq, {64, 256}, {.granularity = kGroups, .group = 128, .bits = 4}},
      {FormatId::kInt8, {64, 128}, {.granularity = Granularity::kRows, .bits = 8}},
      {FormatId::kInt8SmoothQuant, {64, 128}, {.granularity = Granularity::kRows, .bits = 8}, {"input_scale"}},
      {FormatId::kIntQuantized, {64, 128}, {.bits = 8}},
      {FormatId::kIntQuantized, {64, 128}, {.granularity = kGroups, .group = 64, .bits = 8}, {"weight_zero_point"}},
      {FormatId::kPackQuantized,
       {64, 128},
       {.granularity = kGroups, .group = 64, .bits = 4},
       {},
       "weight_packed",
       "",
       4},
      {FormatId::kPackQuantized, {64, 128}, {.bits = 4}, {"weight_zero_point"}, "weight_packed", "", 4},
      {FormatId::kNvfp4Pack, {64, 128}, {.granularity = kGroups, .group = 16}, {}, "weight_packed"},
      {FormatId::kMxfp4Pack, {64, 128}, {.granularity = kGroups, .group = 32}, {}, "weight_packed"},
      {FormatId::kGptq, {64, 128}, {.granularity = kGroups, .group = 64, .bits = 4}, {"g_idx"}, "qweight"},
      {FormatId::kAwq, {64, 128}, {.granularity = kGroups, .group = 64, .bits = 4}, {}, "qweight"},
      {FormatId::kBitsAndBytes4Bit,
       {64, 128},
       {.granularity = kGroups, .group = 64, .bits = 4},
       {"weight.quant_state.bitsandbytes__nf4"},
       "weight",
       state},
      {FormatId::kBitsAndBytes8Bit, {64, 128}, {.granularity = Granularity::kRows, .bits = 8}},
      {FormatId::kQuarkInt4, {64, 128}, {.granularity = kGroups, .group = 64, .bits = 4, .inputs_first = true}},
  };
}

// The tensors of a case, to be recognized, changed or not.
class Stored {
 public:
  explicit Stored(const TableCase& c) {
    options.bits = c.bits;
    options.read = [state = c.state](uint32_t) {
      return state.empty() ? std::optional<std::string>() : std::optional(state);
    };
    for (const Part& part : Parts(c.format, c.shape, c.variant)) {
      if (part.role != Role::kValues && !part.required && !c.also.contains(std::string(part.leaf))) continue;
      Shape shape = part.forms[part.written].shape;
      std::replace(shape.begin(), shape.end(), kAnySize, uint64_t{5});
      leaves.push_back({std::string(part.leaf), part.dtypes.written(), shape});
    }
    if (c.value.empty()) leaves.front().name.clear();
  }

  Match Recognize() const {
    std::vector<StoredLeaf> stored;
    for (const Leaf& leaf : leaves) stored.push_back({leaf.name, leaf.dtype, leaf.shape, 0});
    PartsMemo memo;
    return MatchFormat({"m.weight", stored, options}, &memo);
  }

  struct Leaf {
    std::string name;
    DType dtype;
    Shape shape;
  };
  std::vector<Leaf> leaves;  // the value first
  RecognizeOptions options;
};

std::string Name(const TableCase& c) { return std::string(FormatName(c.format)); }

TEST(FormatTableTest, EveryFormatIsRecognizedFromWhatItStores) {
  std::set<FormatId> seen;
  for (const TableCase& c : Cases()) {
    SCOPED_TRACE(Name(c));
    const Match match = Stored(c).Recognize();
    EXPECT_EQ(FormatName(match.format), FormatName(c.format)) << match.misfit.text;
    EXPECT_EQ(match.shape, c.shape);
    EXPECT_EQ(match.variant.granularity, c.variant.granularity);
    EXPECT_EQ(match.variant.group, c.variant.group);
    EXPECT_EQ(match.variant.inputs_first, c.variant.inputs_first);
    seen.insert(c.format);
  }
  for (int i = 0; i < static_cast<int>(FormatId::kUnrecognized); ++i) {
    const auto id = static_cast<FormatId>(i);
    EXPECT_TRUE(seen.contains(id)) << FormatName(id) << " has no case here";
    ASSERT_NE(FindFormat(id), nullptr);
    ASSERT_NE(FamilyOf(id), nullptr);
  }
  EXPECT_EQ(FindFormat(FormatId::kUnrecognized), nullptr);
}

TEST(FormatTableTest, EverySpellingOfAPartIsRecognized) {
  for (const TableCase& c : Cases()) {
    for (const Part& part : Parts(c.format, c.shape, c.variant)) {
      for (const Form& form : part.forms) {
        Stored stored(c);
        const auto leaf = std::find_if(stored.leaves.begin(), stored.leaves.end(),
                                       [&](const Stored::Leaf& l) { return l.name == part.leaf; });
        if (leaf == stored.leaves.end() || form.shape == leaf->shape || c.format == FormatId::kInt8 ||
            c.format == FormatId::kInt8SmoothQuant || part.role == Role::kState)
          continue;  // ModelOpt's INT8 has one form; the others are compressed-tensors'
        leaf->shape = form.shape;
        std::replace(leaf->shape.begin(), leaf->shape.end(), kAnySize, uint64_t{7});
        EXPECT_EQ(FormatName(stored.Recognize().format), Name(c)) << part.leaf << testing::PrintToString(form.shape);
      }
    }
  }
}

TEST(FormatTableTest, ATensorMoreIsOfNoFormat) {
  for (const TableCase& c : Cases()) {
    Stored stored(c);
    stored.leaves.push_back({"act_scale", DType::kF32, {}});
    const Match match = stored.Recognize();
    EXPECT_EQ(match.format, FormatId::kUnrecognized) << Name(c);
    EXPECT_THAT(match.misfit.text, HasSubstr("act_scale")) << Name(c);
  }
}

TEST(FormatTableTest, ACompanionOfAnotherDtypeIsOfNoFormat) {
  for (const TableCase& c : Cases()) {
    for (size_t i = 1; i < Stored(c).leaves.size(); ++i) {
      for (const DType dtype : {DType::kF64, DType::kI16, DType::kU32, DType::kBool, DType::kU64}) {
        Stored stored(c);
        stored.leaves[i].dtype = dtype;
        EXPECT_EQ(FormatName(stored.Recognize().format), "unrecognized") << Name(c) << " " << stored.leaves[i].name;
      }
    }
  }
}

// With activation order nothing else tells the group of an input.
TEST(FormatTableTest, GptqWithoutGroupIndexIsReadWhereGroupsAreInOrder) {
  for (const bool ordered : {true, false}) {
    Stored stored({FormatId::kGptq,
                   {64, 128},
                   {.granularity = kGroups, .group = 64, .bits = 4, .ordered_groups = ordered},
                   {},
                   "qweight"});
    stored.options.ordered_groups = ordered;
    std::erase_if(stored.leaves, [](const Stored::Leaf& leaf) { return leaf.name == "g_idx"; });
    EXPECT_EQ(stored.Recognize().format, ordered ? FormatId::kGptq : FormatId::kUnrecognized);
  }
}

TEST(FormatTableTest, ACompanionOfMoreElementsIsNeverTheSameFormat) {
  for (const TableCase& c : Cases()) {
    for (size_t i = 1; i < Stored(c).leaves.size(); ++i) {
      const Stored right(c);
      for (size_t dim = 0; dim < right.leaves[i].shape.size(); ++dim) {
        Stored stored(c);
        ++stored.leaves[i].shape[dim];
        const bool free = stored.leaves[i].name.find("lora") != std::string::npos ||
                          stored.leaves[i].name.find("quant_state") != std::string::npos;
        if (free) continue;  // a rank, or the length of a text
        const Match match = stored.Recognize();
        const bool same = match.format == c.format && match.shape == c.shape && match.variant.group == c.variant.group;
        EXPECT_FALSE(same) << Name(c) << " " << stored.leaves[i].name;
      }
    }
  }
}

TEST(FormatTableTest, WhatDoesNotFitIsSaidInWords) {
  TableCase nvfp4 = Cases()[1];
  Stored stored(nvfp4);
  stored.leaves[1].shape = {64, 9};
  EXPECT_EQ(stored.Recognize().misfit.text, "weight_scale is [64, 9], and NVFP4 of [64, 128] has [64, 8] or [64, 4]");
  EXPECT_EQ(stored.Recognize().misfit.nearest, FormatId::kNvfp4);
  Stored fp8(Cases()[8]);
  ASSERT_EQ(Cases()[8].format, FormatId::kFp8PerTensor);
  fp8.leaves[1].dtype = DType::kI32;
  EXPECT_EQ(fp8.Recognize().misfit.text, "weight_scale is I32, and FP8 takes F32, BF16, F16 or F8_E8M0");
}

// By what each part is, its shapes and axes, and what it states anew.
std::string Text(const std::vector<Part>& parts) {
  std::string text;
  for (const Part& part : parts) {
    text += fmt::format("{} {} {}\n", static_cast<int>(part.role), part.leaf, part.written);
    for (const Form& form : part.forms) {
      text += fmt::format("  [{}]", fmt::join(form.shape, ", "));
      for (const auto& axis : form.axes) {
        if (axis) text += fmt::format(" {} by {} as {}", axis->dim, axis->granularity, axis->multiple);
        text += ";";
      }
    }
    if (part.restate) {
      const Shape other = {32, 128};
      for (const std::byte byte : part.restate(other)) text += static_cast<char>(byte);
    }
  }
  return text;
}

TEST(FormatTableTest, RememberedPartsAreThoseOfTheProposal) {
  PartsMemo memo;
  const auto check = [&](const Proposal& proposal) {
    EXPECT_EQ(Text(memo.Of(proposal)), Text(FamilyOf(proposal.format)->parts(proposal))) << FormatName(proposal.format);
  };
  for (const uint64_t rows : {0, 64, 0, 1}) {  // a second time as at first, and between others
    for (const TableCase& c : Cases()) {
      Proposal proposal{c.format, c.shape, c.variant, {}, c.state};
      proposal.shape.front() += rows;
      check(proposal);
      proposal.variant.group *= 2;
      check(proposal);
      if (!proposal.state.empty()) proposal.state.insert(1, "\"nested\": false, ");
      check(proposal);
    }
  }
  // More than are remembered.
  for (uint64_t rows = 1; rows < 3000; ++rows) check({FormatId::kFp8PerTensor, {rows, 128}, {}});
  check({FormatId::kFp8PerTensor, {1, 128}, {}});
}

// What is written is the first spelling that ModelOpt has.
TEST(FormatTableTest, PartsSayWhatIsWritten) {
  const auto written = [](FormatId format, const Shape& shape, const Variant& variant, std::string_view leaf) {
    for (const Part& part : Parts(format, shape, variant)) {
      if (part.leaf == leaf) return part.forms[part.written].shape;
    }
    return Shape{kAnySize};
  };
  const Variant groups = {.granularity = kGroups, .group = 16};
  EXPECT_EQ(written(FormatId::kNvfp4, {64, 128}, groups, "weight"), (Shape{64, 64}));
  EXPECT_EQ(written(FormatId::kNvfp4, {64, 128}, groups, "weight_scale"), (Shape{64, 8}));
  EXPECT_EQ(written(FormatId::kNvfp4, {64, 128}, groups, "weight_scale_2"), Shape{});
  EXPECT_EQ(written(FormatId::kNvfp4, {3, 64, 128}, groups, "weight_scale_2"), Shape{});
  EXPECT_EQ(written(FormatId::kFp8PerChannel, {64, 128}, {.granularity = Granularity::kRows}, "weight_scale"),
            Shape{64});
  EXPECT_EQ(written(FormatId::kFp8Block, {300, 128}, {.granularity = Granularity::kTiles, .tile = {128, 128}},
                    "weight_scale"),
            (Shape{3, 1, 1, 1}));
}

}  // namespace
}  // namespace quantport
