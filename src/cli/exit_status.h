#pragma once

namespace quantport::cli {

enum ExitStatus : int {
  kDone = 0,
  kFailed = 1,
  kUsage = 2,
  kNamesKept = 3,     // revert wrote the export with its in-memory names, as --on-unsupported keep-names asks
  kInterrupted = 128  // plus the signal's number, as shells report it: 130 for Ctrl-C
};

}  // namespace quantport::cli
