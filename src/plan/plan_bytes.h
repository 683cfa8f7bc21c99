// A plan as bytes, for another process or machine to carry out.
//
// "QPLN", a version, the fields of the plan one after the other (plan/plan_fields.h), and a hash of all of that.
// Integers and counts are LEB128, floats their bits, text and lists begin with their count.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "plan/quantize_plan.h"
#include "quantport/error.h"

namespace quantport {

std::string SerializePlan(const QuantizePlan& plan);

// Equal to what was serialized. Whatever the bytes are, the result is a plan whose parts fit (plan/check_plan.h).
// Errors: kIo naming `file` for bytes that are no plan, one of another version, cut or damaged, or whose parts don't
// fit.
Result<QuantizePlan> ParsePlan(std::string_view bytes, std::string_view file);

// FNV-1a. A serialized plan ends with that of all bytes before, little-endian: the same plan, the same hash.
uint64_t PlanHash(std::string_view bytes);

}  // namespace quantport
