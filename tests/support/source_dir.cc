#include "support/source_dir.h"

namespace quantport::test {

std::string SourceDir() { return QUANTPORT_SOURCE_DIR; }

}  // namespace quantport::test
