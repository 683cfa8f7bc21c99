#include "cli/terminal.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "cli/exit_status.h"
#include "quantport/quantport.h"

namespace quantport::cli {

void PrintErrors(const Errors& errors, size_t most) {
  for (size_t i = 0; i < std::min(errors.size(), most); ++i) {
    fmt::print(stderr, "error: {}: {}\n", ErrorKindName(errors[i].kind), errors[i].ToString());
  }
  if (errors.size() > most) fmt::print(stderr, "error: and {} more\n", errors.size() - most);
}

int Fail(const Errors& errors, bool json) {
  if (json) fmt::print("{}", ErrorsJson(errors));
  PrintErrors(errors);
  return kFailed;
}

int Usage(std::string_view message) {
  fmt::print(stderr, "error: {}\n", message);
  return kUsage;
}

void PrintWarnings(const std::vector<Warning>& warnings) {
  for (const Warning& warning : warnings) fmt::print(stderr, "warning: {}\n", warning.ToString());
}

void PrintLeftOut(const std::vector<std::string>& files) {
  std::vector<std::string> notes;
  for (const std::string& file : files) notes.push_back(file + " is left out (--all-files copies it along)");
  PrintNotes(notes, "note");
}

void PrintNotes(const std::vector<std::string>& notes, std::string_view prefix) {
  for (const std::string& note : notes) {
    // The library escapes what it quotes in errors; notes go the same way.
    fmt::print(stderr, "{}: {}\n", prefix, Error{ErrorKind::kIo, note, {}, {}, {}}.ToString());
  }
}

ProgressLine::ProgressLine(bool quiet) : quiet_(quiet), terminal_(isatty(STDERR_FILENO) != 0) {}

ProgressLine::~ProgressLine() {
  if (drawn_) fmt::print(stderr, "\r\033[K");
}

void ProgressLine::Update(uint64_t done, uint64_t total) {
  constexpr std::chrono::milliseconds kRedraw(100), kNextLine(10'000);
  const auto now = std::chrono::steady_clock::now();
  if (quiet_ || now - last_ < (terminal_ ? kRedraw : kNextLine)) return;
  last_ = now;
  drawn_ = terminal_;
  const double seconds = std::max(1e-3, std::chrono::duration<double>(now - start_).count());
  const double rate = static_cast<double>(done) / seconds;
  const std::string text =
      fmt::format("{} of {}  {}/s  {:.0f} s left", HumanSize(done), HumanSize(total),
                  HumanSize(static_cast<uint64_t>(rate)), static_cast<double>(total - done) / std::max(rate, 1.0));
  if (terminal_) {
    fmt::print(stderr, "\r\033[K{}", text);
  } else {
    fmt::print(stderr, "progress: {}\n", text);
  }
  std::fflush(stderr);
}

int TerminalWidth() {
  if (const char* columns = std::getenv("COLUMNS")) {
    const std::string_view text(columns);
    int width = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), width);
    if (error == std::errc() && end == text.data() + text.size() && width > 0) return width;
  }
  winsize size = {};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 100;
}

std::string HumanSize(uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1000.0 && unit < 4) {
    value /= 1000.0;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.2f} {}", value, kUnits[unit]);
}

}  // namespace quantport::cli
