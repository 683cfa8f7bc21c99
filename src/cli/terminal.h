// What commands print: results to standard output, everything else to standard error.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "quantport/error.h"
#include "quantport/warning.h"

namespace quantport::cli {

// Every error on a line of its own; the list is cut after `most` lines, with the number of those left out.
void PrintErrors(const Errors& errors, size_t most = 200);
// The same, and with `json` as an object on standard output too. Returns kFailed.
int Fail(const Errors& errors, bool json);
// For what the parser of arguments can't tell. Returns kUsage.
int Usage(std::string_view message);
void PrintWarnings(const std::vector<Warning>& warnings);
void PrintNotes(const std::vector<std::string>& notes, std::string_view prefix);
// Weights that a run has not taken along, of which it tells however quiet it is.
void PrintLeftOut(const std::vector<std::string>& files);

// Bytes written so far, with rate and time left: redrawn in place on a terminal, a line every ten seconds elsewhere.
class ProgressLine {
 public:
  explicit ProgressLine(bool quiet);
  ~ProgressLine();
  void Update(uint64_t done, uint64_t total);

 private:
  bool quiet_;
  bool terminal_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point last_ = start_;
};

// The width of standard output in characters: $COLUMNS, else the terminal's, else 100.
int TerminalWidth();

std::string HumanSize(uint64_t bytes);

}  // namespace quantport::cli
