// The rows of the table of formats, one file each.
#pragma once

#include "format/format.h"

namespace quantport {

extern const Family kNvfp4Family;
extern const Family kMxFamily;
extern const Family kFp4BlockFamily;
extern const Family kBitsAndBytesFamily;
extern const Family kFp8Family;
extern const Family kInt4Family;
extern const Family kInt8Family;
extern const Family kCompressedTensorsFamily;
extern const Family kGptOssFamily;
extern const Family kGptqFamily;
extern const Family kAwqFamily;
extern const Family kQuarkFamily;
extern const Family kPlainFamily;

}  // namespace quantport
