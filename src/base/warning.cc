#include "quantport/warning.h"

#include "base/text.h"

namespace quantport {
namespace {

constexpr size_t kNames = 3;

}  // namespace

void AddName(std::string name, Warning* warning) {
  ++warning->count;
  if (warning->names.size() < kNames) warning->names.push_back(std::move(name));
}

std::string Warning::ToString() const {
  std::string line = Printable(text);
  if (count > 0) {
    line += " (" + std::to_string(count);
    for (size_t i = 0; i < names.size(); ++i) line += (i == 0 ? ": " : ", ") + Printable(names[i]);
    line += count > names.size() ? ", ...)" : ")";
  }
  if (!remedy.empty()) line += "; " + Printable(remedy);
  return line;
}

}  // namespace quantport
