#include "plan/plan_bytes.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <utility>

#include "plan/check_plan.h"
#include "plan/plan_fields.h"

namespace quantport {
namespace {

using plan_fields::FieldsOf;
using plan_fields::HasFields;

constexpr std::string_view kMagic = "QPLN";
// To be raised with every change of what plans hold.
constexpr uint32_t kVersion = 3;
constexpr size_t kHashBytes = sizeof(uint64_t);

template <typename T>
concept Enumeration = std::is_enum_v<T> && !std::same_as<T, std::byte>;
template <typename T>
concept List = requires(T& x) {
  x.push_back(x[0]);
}
&&!std::same_as<std::remove_const_t<T>, std::string>;

class PlanWriter {
 public:
  explicit PlanWriter(std::string* out) : out_(*out) {}

  template <std::unsigned_integral T>
  void Put(T value) {
    uint64_t rest = value;
    for (; rest >= 0x80; rest >>= 7) out_ += static_cast<char>(rest | 0x80);
    out_ += static_cast<char>(rest);
  }
  void Put(int64_t value) { Put(static_cast<uint64_t>(value)); }
  void Put(float value) { Put(std::bit_cast<uint32_t>(value)); }
  void Put(double value) { Put(std::bit_cast<uint64_t>(value)); }
  void Put(std::byte value) { out_ += static_cast<char>(value); }
  template <Enumeration T>
  void Put(T value) {
    Put(static_cast<std::underlying_type_t<T>>(value));
  }
  void Put(const std::string& text) {
    Put(text.size());
    out_ += text;
  }
  template <typename A, typename B>
  void Put(const std::pair<A, B>& pair) {
    Put(pair.first);
    Put(pair.second);
  }
  template <typename T>
  void Put(const std::optional<T>& value) {
    Put(value.has_value());
    if (value) Put(*value);
  }
  template <List T>
  void Put(const T& list) {
    Put(list.size());
    for (const auto& value : list) Put(value);
  }
  template <typename T, size_t N>
  void Put(const std::array<T, N>& values) {
    for (const T& value : values) Put(value);
  }
  void Put(const std::map<std::string, std::string>& map) {
    Put(map.size());
    for (const auto& entry : map) Put(entry);
  }
  template <HasFields T>
  void Put(const T& value) {
    std::apply([&](const auto&... fields) { (Put(fields), ...); }, FieldsOf(value));
  }

 private:
  std::string& out_;
};

// Every Get is false where the bytes end or hold what no writer puts there.
class PlanReader {
 public:
  explicit PlanReader(std::string_view bytes) : bytes_(bytes) {}

  bool AtEnd() const { return bytes_.empty(); }

  template <std::unsigned_integral T>
  bool Get(T* value) {
    uint64_t number = 0;
    for (int shift = 0;; shift += 7) {
      if (bytes_.empty() || shift > 63) return false;
      const auto byte = static_cast<uint8_t>(bytes_[0]);
      bytes_.remove_prefix(1);
      const uint64_t part = byte & 0x7F;
      // What would fall out at the top, and zeros that a shorter form leaves out.
      if ((part << shift) >> shift != part || (byte == 0 && shift > 0)) return false;
      number |= part << shift;
      if ((byte & 0x80) == 0) break;
    }
    if (number > std::numeric_limits<T>::max()) return false;
    *value = static_cast<T>(number);
    return true;
  }
  bool Get(int64_t* value) {
    uint64_t bits = 0;
    if (!Get(&bits)) return false;
    *value = static_cast<int64_t>(bits);
    return true;
  }
  bool Get(float* value) {
    uint32_t bits = 0;
    if (!Get(&bits)) return false;
    *value = std::bit_cast<float>(bits);
    return true;
  }
  bool Get(double* value) {
    uint64_t bits = 0;
    if (!Get(&bits)) return false;
    *value = std::bit_cast<double>(bits);
    return true;
  }
  bool Get(std::byte* value) {
    if (bytes_.empty()) return false;
    *value = static_cast<std::byte>(bytes_[0]);
    bytes_.remove_prefix(1);
    return true;
  }
  template <Enumeration T>
  bool Get(T* value) {
    std::underlying_type_t<T> number = 0;
    if (!Get(&number) || number > static_cast<std::underlying_type_t<T>>(plan_fields::kLast<T>)) return false;
    *value = static_cast<T>(number);
    return true;
  }
  bool Get(std::string* text) {
    uint64_t count = 0;
    if (!GetCount(&count)) return false;
    *text = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return true;
  }
  template <typename A, typename B>
  bool Get(std::pair<A, B>* pair) {
    return Get(&pair->first) && Get(&pair->second);
  }
  template <typename T>
  bool Get(std::optional<T>* value) {
    bool there = false;
    if (!Get(&there)) return false;
    return !there || Get(&value->emplace());
  }
  // Lists grow as their elements come: a count alone must not take memory.
  template <List T>
  bool Get(T* list) {
    uint64_t count = 0;
    if (!GetCount(&count)) return false;
    for (; count > 0; --count) {
      typename T::value_type value = {};
      if (!Get(&value)) return false;
      list->push_back(std::move(value));
    }
    return true;
  }
  template <typename T, size_t N>
  bool Get(std::array<T, N>* values) {
    return std::all_of(values->begin(), values->end(), [this](T& value) { return Get(&value); });
  }
  bool Get(std::map<std::string, std::string>* map) {
    uint64_t count = 0;
    if (!GetCount(&count)) return false;
    for (; count > 0; --count) {
      std::pair<std::string, std::string> entry;
      if (!Get(&entry) || !map->insert(std::move(entry)).second) return false;
    }
    return true;
  }
  template <HasFields T>
  bool Get(T* value) {
    return std::apply([&](auto&... fields) { return (Get(&fields) && ...); }, FieldsOf(*value));
  }

 private:
  // Each element takes a byte at least.
  bool GetCount(uint64_t* count) { return Get(count) && *count <= bytes_.size(); }

  std::string_view bytes_;
};

Error NoPlan(std::string_view file, std::string message, std::string hint) {
  return {ErrorKind::kIo, std::move(message), std::string(file), {}, std::move(hint)};
}

}  // namespace

uint64_t PlanHash(std::string_view bytes) {
  uint64_t hash = 0xCBF29CE484222325;
  for (const char c : bytes) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001B3;
  return hash;
}

std::string SerializePlan(const QuantizePlan& plan) {
  std::string bytes(kMagic);
  PlanWriter writer(&bytes);
  writer.Put(kVersion);
  writer.Put(plan);
  const uint64_t hash = PlanHash(bytes);
  for (size_t i = 0; i < kHashBytes; ++i) bytes += static_cast<char>(hash >> (8 * i));
  return bytes;
}

Result<QuantizePlan> ParsePlan(std::string_view bytes, std::string_view file) {
  if (!bytes.starts_with(kMagic)) return NoPlan(file, "not a plan", "");
  PlanReader reader(bytes.substr(kMagic.size(), bytes.size() - std::min(bytes.size(), kMagic.size() + kHashBytes)));
  uint32_t version = 0;
  if (!reader.Get(&version)) return NoPlan(file, "the plan is cut", "make it again");
  if (version != kVersion) {
    return NoPlan(file, fmt::format("a plan of version {}, and this program reads version {}", version, kVersion),
                  "plan and carry out with the same release");
  }
  uint64_t hash = 0;
  for (size_t i = 0; i < kHashBytes; ++i)
    hash |= static_cast<uint64_t>(static_cast<uint8_t>(bytes[bytes.size() - kHashBytes + i])) << (8 * i);
  if (hash != PlanHash(bytes.substr(0, bytes.size() - kHashBytes)))
    return NoPlan(file, "the plan is cut or damaged: its hash is another", "make it again");
  QuantizePlan plan;
  if (!reader.Get(&plan) || !reader.AtEnd()) return NoPlan(file, "the plan is malformed", "make it again");
  if (auto status = CheckPlan(plan, file); !status) return status.errors();
  return plan;
}

}  // namespace quantport
