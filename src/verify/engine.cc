#include "verify/engine.h"

#include <fmt/format.h>

#include <cstring>
#include <optional>

#include "engine/builtin_engines.h"
#include "engine/check.h"
#include "io/file.h"
#include "load/small_tensors.h"

namespace quantport {
namespace {

constexpr uint64_t kMaxFactsBytes = 64 << 20;

struct ChosenEngine {
  const Engine* engine;
  EngineFacts facts;
};

Error Unknown(std::string message, std::string hint) {
  return Error{ErrorKind::kUnknownVersion, std::move(message), {}, {}, std::move(hint)};
}

Result<EngineFacts> BuiltInFacts(const std::string& name, const std::string& version) {
  const BuiltInEngine* chosen = nullptr;
  std::string versions;
  for (const BuiltInEngine& built_in : BuiltInEngines()) {
    if (built_in.engine != name) continue;
    versions += (versions.empty() ? "" : ", ") + std::string(built_in.version);
    if (version.empty() || built_in.version == version) chosen = &built_in;
  }
  if (chosen == nullptr) {
    return Unknown(fmt::format("no facts about {} {} are built in", name, version),
                   fmt::format("built in: {}; give others with --engine-file", versions.empty() ? "none" : versions));
  }
  return ParseEngineFacts(chosen->json, fmt::format("{} {}", name, chosen->version));
}

Result<ChosenEngine> Choose(const std::string& asked, const std::filesystem::path& file) {
  const size_t at = asked.find('@');
  const std::string name = asked.substr(0, at);
  const Engine* engine = FindEngine(name);
  if (engine == nullptr)
    return Unknown(fmt::format("there is no engine \"{}\"", name), fmt::format("known are {}", EngineNames()));
  Result<EngineFacts> facts = [&]() -> Result<EngineFacts> {
    if (file.empty()) return BuiltInFacts(name, at == std::string::npos ? "" : asked.substr(at + 1));
    auto text = ReadTextFile(file, kMaxFactsBytes);
    if (!text) return text.errors();
    return ParseEngineFacts(*text, file.string());
  }();
  if (!facts) return facts.errors();
  if (facts->engine != name) {
    return Error{ErrorKind::kInvalidMapping,
                 fmt::format("these are facts about {}, not {}", facts->engine, name),
                 file.string(),
                 {},
                 {}};
  }
  return ChosenEngine{engine, std::move(*facts)};
}

// Of a tensor of the checkpoint's table.
std::optional<float> ReadScalar(const Checkpoint& checkpoint, const StoredTensor& tensor, SmallTensorReader* reader) {
  if (tensor.info.dtype != DType::kF32 || tensor.info.end - tensor.info.begin != sizeof(float)) return std::nullopt;
  const auto bytes = reader->Read(static_cast<uint32_t>(&tensor - checkpoint.table.tensors.data()));
  if (!bytes) return std::nullopt;
  float number = 0;
  std::memcpy(&number, bytes->data(), sizeof number);
  return number;
}

Json ParsedOrNull(const std::string& text) {
  auto json = ParseJson(text, {}, ErrorKind::kInvalidConfig);
  return json ? std::move(*json) : Json();
}

}  // namespace

Result<EngineReport> VerifyForEngine(const Checkpoint& checkpoint, const ConfigFiles& configs,
                                     const std::string& engine, const std::filesystem::path& file) {
  auto chosen = Choose(engine, file);
  if (!chosen) return chosen.errors();
  EngineInput input;
  input.configs.config = ParsedOrNull(configs.config_text);
  if (const auto it = configs.quantization_files.find(std::string(kQuantConfigName));
      it != configs.quantization_files.end())
    input.configs.quant_config = ParsedOrNull(it->second);
  input.table = &checkpoint.table;
  SmallTensorReader reader(checkpoint);
  input.scalar = [&](const StoredTensor& tensor) { return ReadScalar(checkpoint, tensor, &reader); };
  auto findings = CheckEngine(*chosen->engine, chosen->facts, input);
  if (!reader.errors().empty()) return reader.errors();
  return EngineReport{std::string(chosen->engine->title), chosen->facts.version, chosen->facts.held,
                      std::move(findings)};
}

Errors EngineProblems(const EngineReport& report) {
  Errors problems;
  for (const EngineFinding& finding : report.findings) {
    if (finding.problem)
      problems.push_back({ErrorKind::kVerification, fmt::format("{} [{}]", finding.reason, finding.check), finding.file,
                          finding.subject, finding.remedy});
  }
  return problems;
}

}  // namespace quantport
