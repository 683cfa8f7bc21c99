// A model that was saved alone, found inside the one it is a part of: the language model of a vision-language model.
#pragma once

#include <optional>
#include <string>

#include "mapping/resolve.h"

namespace quantport {

// Where the names of the part stand among the in-memory names of the whole.
struct SubModelPlace {
  std::string base;  // leading path of the part's names that stands for the sub-model; "": all names are below it
  std::string path;  // of the sub-model in the whole

  // The whole's name for one of the part's. What the part has beside its base model, a head, stands at the root of
  // both.
  std::string Translate(const std::string& name) const;
};

// Finds the class of `part`, or of its base model where `part` has a head, among the sub-models of `whole`. Nothing
// where both are one class, or where no sub-model or more than one is of it.
std::optional<SubModelPlace> FindSubModel(const ResolvedModel& part, const ResolvedModel& whole);

}  // namespace quantport
