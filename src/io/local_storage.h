// Folders and files of this machine; an address is a path.
#pragma once

#include "io/storage.h"

namespace quantport {

const Storage& LocalStorage();

}  // namespace quantport
