// What is to go wrong in a program, as the environment variable QUANTPORT_FAULT states it.
//
//   kill:N          SIGKILL just before the Nth counted call; every call that changes a file system is counted
//   kill-after:N    just after it
//   torn:N          a write writes half of its bytes, a shift of blocks only changes the file's size; then SIGKILL
//   torn-shift:N    a shift of blocks has moved the extents of the file's second half only; then SIGKILL
//   stop:N, interrupt:N   SIGSTOP or SIGINT just before the Nth counted call
//   error:CALLS:N:ERRNO   the Nth of these calls fails; `N+`: the Nth and every later one
//   short:CALLS     every one transfers at most a third of what it was asked for, but at least a byte
//   eintr:CALLS:N   every Nth of these calls fails with EINTR and does nothing
//   touch:PATH:N, grow:PATH:N, cut:PATH:N   before the Nth read of PATH (as the kernel names it), its time changes, or
//                   it gets a byte more, or one less
//   nosync          counted, but nothing waits for the disk: a kill of the process can't tell
//   count:FILE      appends a line to FILE for every counted call, "NUMBER NAME PATH"; reads have the number 0
//
// Several are separated by commas. CALLS is a family of calls (create, write, sync, rename, remove, mkdir, fallocate,
// truncate, clone, copy, link, read) or one of their names (pwrite, fsync); with @TEXT, those on a path that holds
// TEXT.
#pragma once

#include <cstddef>
#include <cstdint>

namespace quantport::faults {

enum class Family {
  kCreate,
  kWrite,
  kSync,
  kRename,
  kRemove,
  kMkdir,
  kFallocate,
  kTruncate,
  kClone,
  kCopy,
  kLink,
  kRead,
};

// A call about to be made, on a descriptor or a path.
struct Call {
  Family family;
  const char* name;
  int descriptor = -1;
  const char* path = nullptr;
};

// What becomes of it.
struct Fate {
  int error = 0;  // fail with this, and do nothing
  bool shorten = false;
  bool skip = false;        // succeed, and do nothing
  bool torn = false;        // do half of it; `kill` is set as well
  bool torn_shift = false;  // the same, with the second half of a shift of blocks done
  bool kill = false;        // end the process afterwards

  // How many of `bytes` to transfer.
  size_t Transfer(size_t bytes) const;
};

// Counts the call, and ends the process here where a rule says so.
Fate Decide(const Call& call);

// Ends the process as a power switch would: no handler, no destructor, no buffer is flushed.
[[noreturn]] void Kill();

}  // namespace quantport::faults
