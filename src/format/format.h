// A quantized format as a value: which tensors are stored for a weight, from which reading and writing both follow.
//
// Parts() is the only place that knows what a format stores. Recognizing holds a module's tensors against it, cutting
// and joining go by its axes, and what is written has its dtypes and shapes. A format is one file of this folder and
// one line of table.cc.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "format/format_id.h"
#include "format/shape.h"
#include "quantport/dtype.h"

namespace quantport {

// What a stored tensor is to its weight.
enum class Role : uint8_t {
  kValues,            // the weight itself or its codes
  kScale,             // by which codes are multiplied: of the weight, a row, a tile or a group
  kGlobalScale,       // of the scales
  kZeroPoint,         // code that stands for zero
  kGroupIndex,        // group of each input
  kStatedShape,       // the logical shape as numbers
  kState,             // the same and more as JSON
  kStorageKind,       // bitsandbytes' number of the order of values
  kLookup,            // the numbers that codes stand for
  kNestedScale,       // of scales that are codes themselves
  kNestedLookup,      // the numbers that those stand for
  kSmoothing,         // by which inputs are multiplied
  kLowRankIn,         // factors of a correction that is added
  kLowRankOut,        //
  kInputScale,        // of activations
  kInputGlobalScale,  //
  kInputZeroPoint,    //
  kOutputScale,       //
  kUnknown,           // stands below the module, and no format has it
};

// A few dtypes; the first is what is written.
class DTypes {
 public:
  constexpr DTypes(std::initializer_list<DType> dtypes) {
    for (const DType dtype : dtypes) all_[count_++] = dtype;
  }
  constexpr bool Has(DType dtype) const {
    for (size_t i = 0; i < count_; ++i) {
      if (all_[i] == dtype) return true;
    }
    return false;
  }
  constexpr std::span<const DType> all() const { return {all_.data(), count_}; }
  constexpr DType written() const { return all_[0]; }

 private:
  std::array<DType, 8> all_ = {};
  size_t count_ = 0;
};

// Scales that are numbers, and E8M0, powers of two that most producers store as U8.
inline constexpr DTypes kNumbers = {DType::kF32, DType::kBF16, DType::kF16};
inline constexpr DTypes kPowers = {DType::kU8, DType::kF8E8M0};

// A size that a tensor alone decides, such as the length of JSON.
inline constexpr uint64_t kAnySize = UINT64_MAX;

// One shape that a part may have, and what its dimensions mean then.
struct Form {
  Shape shape;
  Axes axes;
};

// One tensor that a format stores.
struct Part {
  Role role = Role::kValues;
  std::string_view leaf;
  DTypes dtypes;
  std::vector<Form> forms;  // spellings of the same: [out] and [out, 1]
  bool required = true;
  size_t written = 0;  // which of the forms is written
  // Of a tensor that states the logical shape in its bytes: its bytes for another shape.
  std::function<std::vector<std::byte>(std::span<const uint64_t> shape)> restate = {};
};

// What shares a scale.
enum class Granularity : uint8_t { kTensor, kRows, kColumns, kTiles, kGroups, kHalves };

// What the logical shape does not say.
struct Variant {
  Granularity granularity = Granularity::kTensor;
  uint64_t group = 0;                 // values along the inputs that share a scale
  std::array<uint64_t, 2> tile = {};  // rows and columns that do
  uint64_t bits = 0;                  // of an integer, where the format has several widths
  uint64_t factors = 0;               // the rank of low-rank factors
  bool inputs_first = false;          // stored [in, out] or [E, in, out]: blocks run along the last but one dimension
  bool half_tiles = false;            // gate and up were quantized apart: tiles start at each one's first row
  bool scale_inv = false;             // the scale is called weight_scale_inv
  bool ordered_groups = false;        // the group of an input follows from its place
  bool narrow_shape = false;          // weight_shape is of 32-bit numbers
  bool nested = false;                // scales are codes themselves

  friend bool operator==(const Variant&, const Variant&) = default;
};

// What the configs say, and what else helps to tell how tensors are stored. All of it may be unknown.
struct RecognizeOptions {
  bool quantized = false;                         // a weight of packed bytes without scales is then a defect
  std::array<uint64_t, 2> fp8_tile = {128, 128};  // rows and columns (weight_block_size); ModelOpt does not record it
  uint64_t group_size = 0;                        // values that share a scale; 0: unknown
  uint64_t bits = 0;                              // of a packed integer; 0: unknown
  bool ordered_groups = false;                    // GPTQ without activation order: column i is of group i / group_size
  std::string algorithm = {};                     // quant_algo, "" where unknown
  std::function<std::optional<std::string>(uint32_t tensor)> read = {};  // the bytes of a small tensor of the table
};

// A stored tensor by what its header says.
struct StoredLeaf {
  std::string_view leaf;
  DType dtype = DType::kU8;
  std::span<const uint64_t> shape;
  uint32_t tensor = 0;  // of the table
};

// A weight whose format is being decided, and all that is stored for it.
struct StoredModule {
  std::string_view key;
  std::span<const StoredLeaf> leaves;  // the value first
  const RecognizeOptions& options;

  const StoredLeaf& value() const { return leaves[0]; }
  // The value tensor has the module's (or the bare parameter's) own name.
  bool HasOwnName() const { return value().leaf == "weight" || value().leaf.empty(); }
  const StoredLeaf* Find(std::string_view leaf) const;
  bool Has(std::string_view leaf) const { return Find(leaf) != nullptr; }
  // The bytes of a small tensor, or nothing where they can't be had: a reference of headers alone.
  std::optional<std::string> Read(const StoredLeaf& leaf) const;
};

// What a module's tensors may be. Whether they are, Parts() decides.
struct Proposal {
  FormatId format = FormatId::kPlain;
  Shape shape;  // logical
  Variant variant;
  std::string misfit = {};  // why they can't be, though they come near: for the message alone
  std::string state = {};   // bitsandbytes: the JSON that states the shape
};

struct Encoding;

struct Format {
  FormatId id;
  std::string_view name;  // for people and JSON
  // input_scale is the largest activation over this; 0: the format has none.
  float input_divisor = 0;
  // As many rows are coded together.
  uint64_t row_step = 1;
};

// Formats that are stored alike, and differ in optional parts.
struct Family {
  std::span<const Format> formats;
  std::vector<Part> (*parts)(const Proposal& proposal);
  // What this family's tensors may be, by value and scale; the likeliest first.
  void (*propose)(const StoredModule& module, std::vector<Proposal>* proposals);
  // What the stored tensors call for and don't have.
  std::optional<std::string> (*missing)(const StoredModule& module) = nullptr;
  // Fills the variant that is written for a weight of this shape, three dimensions being batched experts, [experts,
  // inputs, outputs]. Why none is ("NVFP4 in blocks of 64"), or nothing. Null: no format of the family is written.
  std::optional<std::string> (*written)(const Encoding& encoding, const Shape& shape, Variant* variant) = nullptr;
};

// All of them. The first whose parts fit decides; they exclude each other but for plain, which is last.
std::span<const Family* const> Families();

// A format's row; null for kUnrecognized.
const Format* FindFormat(FormatId id);

// The family of a format; null for kUnrecognized.
const Family* FamilyOf(FormatId id);

// Every tensor that a weight of this format, shape and variant is stored in, the values first.
std::vector<Part> Parts(FormatId format, const Shape& shape, const Variant& variant);

}  // namespace quantport
