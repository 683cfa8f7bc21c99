// What an inference engine makes of a checkpoint, from facts about that engine (docs/engines.md).
#pragma once

#include <string>
#include <vector>

namespace quantport {

// One thing that a check of an engine found.
struct EngineFinding {
  std::string check;    // the check's id, "fused-parts"
  bool problem = true;  // else the checkpoint loads all the same
  std::string file;     // the config file that is concerned, or ""
  std::string subject;  // the first module, tensor or entry, and how many others there are
  std::string reason;
  std::string remedy;      // "" where nothing need be done
  bool unchecked = false;  // of what is no problem: something could not be checked, for want of facts
};

struct EngineReport {
  std::string engine;   // as its makers write it, "vLLM"
  std::string version;  // that the facts are of
  bool held = true;     // the checks were held to the engine itself; else they come from reading its source
  std::vector<EngineFinding> findings;

  // Whether all that the engine reads was checked.
  bool complete() const;
};

}  // namespace quantport
