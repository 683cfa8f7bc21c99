// Plans that come from elsewhere: whatever the bytes are, what is taken for a plan fits, is the same after a round
// trip, and its parts fit as well and have every file once.
#include <set>
#include <string>
#include <string_view>

#include "check.h"
#include "plan/check_plan.h"
#include "plan/plan_bytes.h"
#include "plan/plan_parts.h"

namespace quantport {
namespace {

using fuzz::Check;

// The input stands between the magic and the hash, which no fuzzer would find.
std::string Framed(std::string_view payload) {
  std::string bytes = "QPLN";
  bytes += payload;
  const uint64_t hash = PlanHash(bytes);
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(hash >> (8 * i));
  return bytes;
}

void CheckParts(const QuantizePlan& plan, size_t parts) {
  std::multiset<std::string> names;
  for (size_t part = 0; part < parts; ++part) {
    const QuantizePlan cut = PartOf(plan, part, parts);
    Check(CheckPlan(cut, "part").ok(), "a part fits");
    for (const PlannedFile& file : cut.files.files) names.insert(file.name);
    for (const auto& [name, text] : cut.files.texts) names.insert(name);
    for (const PlannedCopy& copy : cut.files.copies) names.insert(copy.name);
  }
  Check(names.size() == plan.files.files.size() + plan.files.texts.size() + plan.files.copies.size(),
        "every file is in a part");
  Check(std::set<std::string>(names.begin(), names.end()).size() == names.size(), "and in no other");
}

}  // namespace
}  // namespace quantport

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quantport;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  fuzz::Check(!ParsePlan(input, "input").ok() || input.size() > 12, "what is shorter than magic and hash is no plan");
  const auto plan = ParsePlan(Framed(input), "input");
  if (!plan) return 0;
  // Bytes and not values are compared: a NaN is not equal to itself.
  const std::string bytes = SerializePlan(*plan);
  const auto again = ParsePlan(bytes, "again");
  fuzz::Check(again.ok(), "what was written is read");
  fuzz::Check(SerializePlan(*again) == bytes, "and is the same");
  for (const size_t parts : {1, 2, 3}) CheckParts(*plan, parts);
  return 0;
}
