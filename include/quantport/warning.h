// Warnings as values: what may not be what one wants, though nothing is wrong in what was written.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace quantport {

struct Warning {
  std::string id;                  // of its kind, for programs: "unrecognized-weights"
  std::string text;                // one sentence
  uint64_t count = 0;              // of the modules or tensors it is about; 0: of none in particular
  std::vector<std::string> names;  // the first three of them
  std::string remedy;              // what to do about it; "" where the text says it

  // One line, with control characters escaped: "text: 12, a, b, c among them (remedy)".
  std::string ToString() const;
};

// Counts one more module or tensor, and keeps its name if it is among the first.
void AddName(std::string name, Warning* warning);

}  // namespace quantport
