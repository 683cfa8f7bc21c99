// The hub checkpoint of an export, found where the Hugging Face libraries keep what they have downloaded. Never the
// network.
#pragma once

#include <optional>
#include <string>

#include "io/storage.h"
#include "quantport/error.h"

namespace quantport {

struct FoundReference {
  std::string address;  // of the folder, or of the index in it where its weights are not all there
  std::string note;     // which one it is and who named it
};

// By config.json's _name_or_path, then by base_model of the model card (README.md): the first that is in the cache and
// is a model of the same model_type. Nothing where there is none, or where a file of the cache can't be read. Errors:
// kIo for the checkpoint's own files.
Result<std::optional<FoundReference>> FindReference(const Storage& storage, const std::string& checkpoint);

}  // namespace quantport
