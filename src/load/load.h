// What several commands begin with: the mapping for a config, and a reference to hold names against.
#pragma once

#include <optional>
#include <string>

#include "checkpoint/checkpoint.h"
#include "mapping/model.h"
#include "plan/conversion.h"
#include "quantport/quantport.h"

namespace quantport {

// Reads the mapping file of `options`, if it names one, and resolves the model of `config_text`.
Result<ModelMapping> LoadModel(const std::string& config_text, const std::string& config_file,
                               const MappingOptions& options);

// What to say of a model whose class was picked by model_type; nothing where config.json's own is known.
std::optional<std::string> ClassNote(const ResolvedModel& model);

// The reference's own model, by the mapping that `part` is resolved with; nothing where there is no config.json in the
// reference's folder or its class is not known. Errors: kIo where there is one that can't be read.
Result<std::optional<ResolvedModel>> LoadReferenceModel(const Storage& storage, const std::string& reference,
                                                        const MappingOptions& options, const ModelMapping& part);

// The reference's value keys and, where it has headers whose layouts are known, their logical shapes.
ReferenceView MakeReferenceView(ReferenceNames names);

}  // namespace quantport
