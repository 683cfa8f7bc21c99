// Where the project's files are, for tests that read some of them.
#pragma once

#include <string>

namespace quantport::test {

// The root of the checkout. Defined for one file alone, so that compilers' caches serve several checkouts.
std::string SourceDir();

}  // namespace quantport::test
