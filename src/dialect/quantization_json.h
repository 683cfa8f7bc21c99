// Where config files keep what they say of a quantization.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "dialect/entry.h"

namespace quantport {

// A field of a quantization's object that speaks of modules.
struct ModuleField {
  enum class Form : uint8_t {
    kList,    // of entries, or of such lists; or one entry
    kCommas,  // the same, an entry being several with commas between them
    kKeys,    // an object whose keys are entries
  };
  std::string_view key;
  EntrySyntax syntax = EntrySyntax::kNames;
  Form form = Form::kList;
  bool excludes = false;  // names what is left unquantized
};

// Every producer's: ModelOpt, compressed-tensors, fine-grained FP8, bitsandbytes, AutoAWQ, Quark, HQQ, GPTQ and
// auto-round. A key means the same to all of them that have it.
inline constexpr std::array<ModuleField, 17> kModuleFields = {{
    {"exclude_modules", EntrySyntax::kNames, ModuleField::Form::kList, true},
    {"ignore", EntrySyntax::kNames, ModuleField::Form::kList, true},
    {"modules_to_not_convert", EntrySyntax::kSegments, ModuleField::Form::kList, true},
    {"ignored_layers", EntrySyntax::kSegments, ModuleField::Form::kList, true},
    {"llm_int8_skip_modules", EntrySyntax::kSegments, ModuleField::Form::kList, true},
    {"exclude", EntrySyntax::kNames, ModuleField::Form::kList, true},
    {"skip_modules", EntrySyntax::kSegments, ModuleField::Form::kList, true},
    {"modules_to_convert", EntrySyntax::kSegments, ModuleField::Form::kList},
    {"modules_in_block_to_quantize", EntrySyntax::kEnds, ModuleField::Form::kList},
    {"block_name_to_quantize", EntrySyntax::kNames, ModuleField::Form::kCommas},
    {"to_quant_block_names", EntrySyntax::kNames, ModuleField::Form::kCommas},
    {"kv_cache_group", EntrySyntax::kNames, ModuleField::Form::kList},
    {"quantized_layers", EntrySyntax::kNames, ModuleField::Form::kKeys},
    {"layer_quant_config", EntrySyntax::kNames, ModuleField::Form::kKeys},
    {"kv_cache_quant_config", EntrySyntax::kNames, ModuleField::Form::kKeys},
    {"dynamic", EntrySyntax::kSigned, ModuleField::Form::kKeys},
    {"extra_config", EntrySyntax::kSearched, ModuleField::Form::kKeys},
}};

// The objects of a config file that describe a quantization: below the keys that producers use, or the file itself, as
// GPTQ's, AutoAWQ's and auto-round's own files are.
std::vector<Json*> FindQuantizations(Json* config);

}  // namespace quantport
