// What a checkpoint is made of.
#pragma once

#include <string>

#include "io/storage.h"
#include "quantport/quantport.h"

namespace quantport {

// The public Inspect, for a folder of any storage.
Result<InspectReport> Inspect(const Storage& storage, const std::string& address);

}  // namespace quantport
