// Two checkpoints: tensors by name, then the bytes of those that agree in form, then the files beside them.
#pragma once

#include "io/storage.h"
#include "quantport/quantport.h"

namespace quantport {

// The public Diff, for folders of any storage; with DiffOptions::map both must be folders of this machine.
Result<DiffReport> Diff(const DiffOptions& options, const Storage& storage);

}  // namespace quantport
