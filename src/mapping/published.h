// What hubs call their tensors, of models whose published names are not those that transformers' mapping gives back:
// facts about single repositories (data/published.json), where the rules of a mapping are right about none.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace quantport {

struct PublishedNames {
  std::string hub;                            // "deepseek-ai/DeepSeek-V4-Pro", for messages
  std::vector<std::string> names;             // of the values, "*" for numbers of layers and experts
  std::map<std::string, std::string> leaves;  // the format's name of a companion -> the published one
};

// Of a model class; null where nothing is known, or the mapping gives the published names anyway.
const PublishedNames* FindPublishedNames(const std::string& model_class);

}  // namespace quantport
