#include "faults/rules.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

namespace quantport::faults {
namespace {

enum class Action {
  kKill,
  kKillAfter,
  kTorn,
  kTornShift,
  kStop,
  kInterrupt,
  kError,
  kShort,
  kRepeat,
  kTouch,
  kGrow,
  kCut,
  kNoSync,
  kCount
};

struct Rule {
  Action action;
  std::string calls;  // a family or a name
  std::string path;   // touch, grow, cut, count: the file; else what a call's path must hold
  long number = 0;
  bool onward = false;
  int error = 0;
  std::atomic<long> matched = 0;
};

constexpr std::array<std::string_view, 12> kFamilies = {"create",    "write",    "sync",  "rename", "remove", "mkdir",
                                                        "fallocate", "truncate", "clone", "copy",   "link",   "read"};

struct ErrorName {
  std::string_view name;
  int code;
};
constexpr ErrorName kErrors[] = {{"ENOSPC", ENOSPC}, {"EDQUOT", EDQUOT}, {"EIO", EIO},       {"EROFS", EROFS},
                                 {"EACCES", EACCES}, {"EPERM", EPERM},   {"EINVAL", EINVAL}, {"EOPNOTSUPP", EOPNOTSUPP},
                                 {"ENOSYS", ENOSYS}, {"EXDEV", EXDEV},   {"EFBIG", EFBIG},   {"ETXTBSY", ETXTBSY}};

// A test with a mistyped rule must not pass as one without faults.
[[noreturn]] void Refuse(std::string_view rule) {
  dprintf(STDERR_FILENO, "QUANTPORT_FAULT: not a rule: %.*s\n", static_cast<int>(rule.size()), rule.data());
  _exit(127);
}

std::vector<std::string> Split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  while (true) {
    const size_t end = text.find(separator);
    parts.emplace_back(text.substr(0, end));
    if (end == text.npos) return parts;
    text.remove_prefix(end + 1);
  }
}

struct Syntax {
  std::string_view name;
  Action action;
  size_t fields;
};
constexpr Syntax kSyntax[] = {{"stop", Action::kStop, 2},     {"interrupt", Action::kInterrupt, 2},
                              {"kill", Action::kKill, 2},     {"kill-after", Action::kKillAfter, 2},
                              {"torn", Action::kTorn, 2},     {"torn-shift", Action::kTornShift, 2},
                              {"error", Action::kError, 4},   {"short", Action::kShort, 2},
                              {"eintr", Action::kRepeat, 3},  {"touch", Action::kTouch, 3},
                              {"grow", Action::kGrow, 3},     {"cut", Action::kCut, 3},
                              {"nosync", Action::kNoSync, 1}, {"count", Action::kCount, 2}};

bool IsFile(Action action) {
  return action == Action::kTouch || action == Action::kGrow || action == Action::kCut || action == Action::kCount;
}

bool IsPoint(Action action) {
  return action == Action::kKill || action == Action::kKillAfter || action == Action::kTorn ||
         action == Action::kTornShift || action == Action::kStop || action == Action::kInterrupt;
}

void ParseNumber(const std::string& text, std::string_view whole, Rule* rule) {
  char* end = nullptr;
  rule->number = std::strtol(text.c_str(), &end, 10);
  rule->onward = *end == '+';
  if (rule->number < 1 || (*end != '\0' && std::string_view(end) != "+")) Refuse(whole);
}

void ParseRule(std::string_view text, std::deque<Rule>* rules) {
  const std::vector<std::string> fields = Split(text, ':');
  Rule& rule = rules->emplace_back();
  const Syntax* found = nullptr;
  for (const Syntax& syntax : kSyntax) {
    if (syntax.name == fields[0] && syntax.fields == fields.size()) found = &syntax;
  }
  if (found == nullptr) Refuse(text);
  rule.action = found->action;
  if (IsPoint(rule.action)) return ParseNumber(fields[1], text, &rule);
  if (rule.action == Action::kNoSync) return;
  if (IsFile(rule.action)) {
    rule.path = fields[1];
  } else {
    const size_t at = fields[1].find('@');
    rule.calls = fields[1].substr(0, at);
    if (at != std::string::npos) rule.path = fields[1].substr(at + 1);
  }
  if (fields.size() > 2) ParseNumber(fields[2], text, &rule);
  // Every call interrupted would be repeated for ever.
  if (rule.action == Action::kRepeat && rule.number < 2) Refuse(text);
  if (rule.action != Action::kError) return;
  for (const ErrorName& error : kErrors) {
    if (error.name == fields[3]) rule.error = error.code;
  }
  if (rule.error == 0) Refuse(text);
}

struct Rules {
  std::deque<Rule> rules;
  int log = -1;
};

// Never destroyed: other libraries' destructors may still write.
Rules& All() {
  static Rules& all = *[] {
    auto* made = new Rules;
    const char* text = std::getenv("QUANTPORT_FAULT");
    if (text == nullptr || *text == '\0') return made;
    for (const std::string& rule : Split(text, ',')) ParseRule(rule, &made->rules);
    for (const Rule& rule : made->rules) {
      if (rule.action != Action::kCount) continue;
      const int mode = 0644;
      made->log = static_cast<int>(
          syscall(SYS_openat, AT_FDCWD, rule.path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, mode));
      if (made->log < 0) Refuse("count");
    }
    return made;
  }();
  return all;
}

std::atomic<long> g_counted = 0;

std::string PathOf(const Call& call) {
  if (call.path != nullptr) return call.path;
  std::array<char, 4096> path;
  const std::string link = "/proc/self/fd/" + std::to_string(call.descriptor);
  const ssize_t length = readlink(link.c_str(), path.data(), path.size());
  return length < 0 ? std::string() : std::string(path.data(), static_cast<size_t>(length));
}

bool Matches(const Rule& rule, const Call& call, const std::string& path) {
  if (rule.action == Action::kCount) return false;
  if (IsFile(rule.action)) return call.family == Family::kRead && path == rule.path;
  if (rule.calls != call.name && rule.calls != kFamilies[static_cast<size_t>(call.family)]) return false;
  return path.find(rule.path) != std::string::npos;
}

// Straight to the kernel, past this library's own calls.
void Change(const Rule& rule) {
  struct stat info = {};
  if (stat(rule.path.c_str(), &info) != 0) Refuse(rule.path);
  long failed = 0;
  if (rule.action == Action::kTouch) {
    failed = syscall(SYS_utimensat, AT_FDCWD, rule.path.c_str(), nullptr, 0);
  } else {
    failed = syscall(SYS_truncate, rule.path.c_str(), info.st_size + (rule.action == Action::kGrow ? 1 : -1));
  }
  if (failed != 0) Refuse(rule.path);
}

void Log(int log, long number, const Call& call, const std::string& path) {
  const std::string line = std::to_string(number) + " " + call.name + " " + path + "\n";
  (void)!syscall(SYS_write, log, line.data(), line.size());
}

// A rule for the counted call of one number.
void ApplyPoint(const Rule& rule, const Call& call, Fate* fate) {
  if (rule.action == Action::kKill) Kill();
  if (rule.action == Action::kStop || rule.action == Action::kInterrupt) {
    syscall(SYS_kill, getpid(), rule.action == Action::kStop ? SIGSTOP : SIGINT);
    return;
  }
  fate->kill = true;
  fate->torn_shift = rule.action == Action::kTornShift;
  fate->torn = fate->torn_shift || rule.action == Action::kTorn;
  const bool halves =
      call.family == Family::kWrite || call.family == Family::kCopy || call.family == Family::kFallocate;
  if (fate->torn && !halves) Kill();
}

// A rule for some calls, or for a number of them.
void ApplyMatched(Rule* rule, Fate* fate) {
  const long matched = rule->matched.fetch_add(1) + 1;
  const bool hit = rule->onward ? matched >= rule->number : matched == rule->number;
  if (rule->action == Action::kShort) fate->shorten = true;
  if (rule->action == Action::kRepeat && matched % rule->number == 0) fate->error = EINTR;
  if (rule->action == Action::kError && hit) fate->error = rule->error;
  if (IsFile(rule->action) && hit) Change(*rule);
}

}  // namespace

size_t Fate::Transfer(size_t bytes) const {
  if (torn) return bytes / 2;
  if (shorten && bytes > 1) return bytes < 6 ? 1 : bytes / 3;
  return bytes;
}

void Kill() {
  syscall(SYS_kill, getpid(), SIGKILL);
  while (true) pause();
}

Fate Decide(const Call& call) {
  Rules& all = All();
  Fate fate;
  const bool standard = call.path == nullptr && call.descriptor <= STDERR_FILENO;
  if (all.rules.empty() || standard) return fate;
  const int saved = errno;
  const bool reads = call.family == Family::kRead;
  const long number = reads ? 0 : g_counted.fetch_add(1) + 1;
  const std::string path = PathOf(call);
  if (all.log >= 0) Log(all.log, number, call, path);
  for (Rule& rule : all.rules) {
    if (IsPoint(rule.action)) {
      if (number == rule.number) ApplyPoint(rule, call, &fate);
    } else if (rule.action == Action::kNoSync) {
      fate.skip = call.family == Family::kSync;
    } else if (Matches(rule, call, path)) {
      ApplyMatched(&rule, &fate);
    }
  }
  errno = saved;
  return fate;
}

}  // namespace quantport::faults
