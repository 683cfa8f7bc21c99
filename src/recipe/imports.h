// `imports` and `$import` of recipe files, resolved as ModelOpt's config loader does.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "recipe/files.h"
#include "recipe/schema.h"
#include "recipe/value.h"

namespace quantport {

// A file whose imports are resolved, with what its comments say.
struct ResolvedFile {
  YamlValue value;
  std::string description;  // the paragraph of comments before the modelopt-schema line
};

// Reads one recipe with all that it imports. Each imported file is read once, however often it is named; at most 256
// files, 32 deep, and 1,000,000 values with all imports written out.
class ImportResolver {
 public:
  explicit ImportResolver(const RecipeSources& sources) : sources_(sources) {}

  // `schema`: what the file is to be, where its own comment says nothing else. Throws RecipeProblem.
  ResolvedFile Resolve(const RecipeFile& file, const Schema& schema);

 private:
  struct Imported {
    YamlValue value;
    Schema schema;
  };
  using Names = std::map<std::string, const Imported*>;

  const Imported& Import(const YamlValue& path);
  YamlValue ResolveDocuments(const RecipeFile& file, const Schema& schema);
  Names ReadImports(const YamlValue* imports);
  const Imported& Lookup(const YamlValue& reference, const Names& names) const;
  YamlValue ResolveValue(YamlValue value, const Schema& schema, const Names& names);
  YamlValue ResolveMap(YamlValue map, const Schema& schema, const Names& names);
  YamlValue ResolveList(YamlValue list, const Schema& schema, const Names& names);
  void Splice(const YamlValue& entry, const Schema& list_schema, const Names& names, std::vector<YamlValue>* out);
  void Count(const YamlValue& value);

  const RecipeSources& sources_;
  std::map<std::string, Imported> done_;  // by path
  std::vector<std::string> open_;         // paths on the way to the file being read
  size_t values_ = 0;
};

}  // namespace quantport
