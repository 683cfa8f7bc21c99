// What companions are called on the other side: memory goes by the formats' names, a hub checkpoint by its own.
#pragma once

#include <vector>

#include "plan/conversion.h"

namespace quantport {

// How a hub checkpoint spells a companion below a module: as the reference does, or where it has none of the kind, or
// is null, as the export does. Null for the format's own name.
const LeafSpelling* HubSpelling(const StoredPart& part, const ReferenceView* reference);

// Whether the hub checkpoint spells some companion of these otherwise than they do, or has the number of some expert in
// another place.
bool IsSpelledOtherwise(const std::vector<WeightUnit>& units, const ReferenceView* reference);

// Gives a part of a unit of the style `from` the spelling that it has in the result. True where that is another one.
bool Respell(const ConversionInput& input, NameStyle from, NameStyle to, StoredPart* part);

}  // namespace quantport
