// Mapping files: whatever is accepted compiles or says why not, in both directions, and renames without trouble.
// Conversions are looked up under the keys "m" and "legacy", classes under "C".
#include <array>
#include <string_view>

#include "check.h"
#include "mapping/registry.h"
#include "mapping/renamer.h"

namespace quantport {
namespace {

using fuzz::Check;

constexpr std::array<std::string_view, 8> kNames = {"model.layers.0.mlp.gate_up_proj.weight",
                                                    "model.layers.10.mlp.experts.3.up_proj.weight",
                                                    "model.layers.1.mlp.experts.gate_up_proj",
                                                    "visual.blocks.2.norm.weight",
                                                    "b",
                                                    "a.0.b",
                                                    "",
                                                    "t\xc3\xa9xt.*.\\1"};

void RenameAll(const std::vector<Transform>& transforms) {
  for (const Transform& transform : transforms) (void)DescribeTransform(transform);
  for (const auto direction : {Renamer::Direction::kLoad, Renamer::Direction::kSave}) {
    auto renamer = Renamer::Create(transforms, direction);
    if (!renamer) continue;
    for (const std::string_view name : kNames) {
      const RenamedKey probed = renamer->Probe(name);
      const RenamedKey renamed = renamer->Rename(name);
      Check(probed.name == renamed.name && probed.fired == renamed.fired, "a probe renames as a rename does");
      if (renamed.converter < 0) continue;
      const CompiledTransform& converter = renamer->converter(renamed.converter);
      Check(renamed.source < converter.sources().size(), "a match is one of the converter's sources");
    }
  }
}

}  // namespace
}  // namespace quantport

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quantport;
  const auto registry = Registry::Parse(std::string_view(reinterpret_cast<const char*>(data), size), "fuzz");
  if (!registry) return 0;
  for (const char* key : {"m", "legacy"}) {
    if (const auto* transforms = registry->FindConversions(key)) RenameAll(*transforms);
  }
  (void)registry->FindClass("C");
  (void)registry->FindAuto("AutoModel", "m");
  return 0;
}
