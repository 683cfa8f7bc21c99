// The process' limit of open files while the library works.
#pragma once

namespace quantport::python {

// While one exists, the limit is as high as it may be: a 2 TB checkpoint has several hundred shards, and both sides of
// a copy are open at once. The last one restores it, since what the process starts later inherits it.
class ManyOpenFiles {
 public:
  ManyOpenFiles();
  ~ManyOpenFiles();
  ManyOpenFiles(const ManyOpenFiles&) = delete;
  ManyOpenFiles& operator=(const ManyOpenFiles&) = delete;
};

}  // namespace quantport::python
