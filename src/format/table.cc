// The table of formats: one line for each family. A new format is a file beside this one and a line here.
#include <algorithm>
#include <array>

#include "format/families.h"

namespace quantport {
namespace {

constexpr std::array<const Family*, 13> kFamilies = {
    &kNvfp4Family,  &kMxFamily,   &kFp4BlockFamily, &kBitsAndBytesFamily,
    &kFp8Family,    &kInt4Family, &kInt8Family,     &kCompressedTensorsFamily,
    &kGptOssFamily, &kGptqFamily, &kAwqFamily,      &kQuarkFamily,
    &kPlainFamily,
};

struct Row {
  const Format* format = nullptr;
  const Family* family = nullptr;
};
constexpr size_t kCount = static_cast<size_t>(FormatId::kUnrecognized);

std::array<Row, kCount> MakeRows() {
  std::array<Row, kCount> rows;
  for (const Family* family : kFamilies) {
    for (const Format& format : family->formats) rows[static_cast<size_t>(format.id)] = {&format, family};
  }
  return rows;
}

// Null for what stands in no row: kUnrecognized.
const Row* FindRow(FormatId id) {
  static const std::array<Row, kCount> rows = MakeRows();
  return static_cast<size_t>(id) < kCount ? &rows[static_cast<size_t>(id)] : nullptr;
}

}  // namespace

std::span<const Family* const> Families() { return kFamilies; }

const Format* FindFormat(FormatId id) {
  const Row* row = FindRow(id);
  return row == nullptr ? nullptr : row->format;
}

const Family* FamilyOf(FormatId id) {
  const Row* row = FindRow(id);
  return row == nullptr ? nullptr : row->family;
}

std::vector<Part> Parts(FormatId format, const Shape& shape, const Variant& variant) {
  const Family* family = FamilyOf(format);
  if (family == nullptr) return {};
  return family->parts({format, shape, variant});
}

std::string_view FormatName(FormatId format) {
  const Format* row = FindFormat(format);
  return row == nullptr ? "unrecognized" : row->name;
}

}  // namespace quantport
