#include "open_files.h"

#include <sys/resource.h>

#include <mutex>

namespace quantport::python {
namespace {

std::mutex g_mutex;
int g_users = 0;
rlimit g_before = {};

}  // namespace

ManyOpenFiles::ManyOpenFiles() {
  const std::lock_guard lock(g_mutex);
  if (g_users++ > 0) return;
  if (getrlimit(RLIMIT_NOFILE, &g_before) != 0) return;
  const rlimit raised = {g_before.rlim_max, g_before.rlim_max};
  (void)setrlimit(RLIMIT_NOFILE, &raised);
}

ManyOpenFiles::~ManyOpenFiles() {
  const std::lock_guard lock(g_mutex);
  if (--g_users > 0) return;
  rlimit now = {};
  // Somebody else set it meanwhile: theirs stays.
  if (getrlimit(RLIMIT_NOFILE, &now) != 0 || now.rlim_cur != g_before.rlim_max) return;
  now.rlim_cur = g_before.rlim_cur;
  (void)setrlimit(RLIMIT_NOFILE, &now);
}

}  // namespace quantport::python
