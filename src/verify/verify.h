// A checkpoint held against a reference and its own configs.
#pragma once

#include "io/storage.h"
#include "quantport/quantport.h"

namespace quantport {

// The public Verify, for folders of any storage.
Result<VerifyReport> Verify(const VerifyOptions& options, const Storage& storage);

}  // namespace quantport
