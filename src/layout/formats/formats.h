// Every format there is. docs/layouts.md has a section for each.
#pragma once

#include "layout/formats/format.h"

namespace quantport {

extern const Format kPlainFormat;
extern const Format kNvfp4Format;
extern const Format kMxFormat;
extern const Format kFp8Format;
extern const Format kFp4BlockFormat;
extern const Format kInt4Format;
extern const Format kInt8Format;
extern const Format kCompressedTensorsFormat;
extern const Format kGptOssFormat;
extern const Format kGptqFormat;
extern const Format kAwqFormat;
extern const Format kBitsAndBytesFormat;
extern const Format kQuarkFormat;

}  // namespace quantport
