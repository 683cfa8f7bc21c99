// Whether an inference engine loads a checkpoint whole.
#pragma once

#include <filesystem>
#include <string>

#include "checkpoint/checkpoint.h"
#include "load/configs.h"
#include "quantport/engine.h"

namespace quantport {

// `engine`: a name, and "@VERSION" where it isn't the newest known. `file`: facts to take instead of the built-in ones,
// or "". Errors: kUnknownVersion where there is no such engine or version; kInvalidMapping of `file`; kIo.
Result<EngineReport> VerifyForEngine(const Checkpoint& checkpoint, const ConfigFiles& configs,
                                     const std::string& engine, const std::filesystem::path& file);

// The findings that are problems.
Errors EngineProblems(const EngineReport& report);

}  // namespace quantport
