#include "cli/writing.h"

#include <fmt/format.h>

#include "cli/interrupt.h"
#include "cli/terminal.h"

namespace quantport::cli {

Reflink ReflinkOf(std::string_view text) {
  return text == "always" ? Reflink::kAlways : text == "never" ? Reflink::kNever : Reflink::kAuto;
}

int FailWriting(const Errors& errors, bool in_place, bool json) {
  // More errors than that one: what was begun could not be taken back.
  if (errors.size() == 1 && errors.front().kind == ErrorKind::kCancelled) {
    fmt::print(stderr, "interrupted: {}\n", in_place ? "the folder is as it was" : "nothing was left at the output");
    return InterruptedStatus();
  }
  return Fail(errors, json);
}

}  // namespace quantport::cli
