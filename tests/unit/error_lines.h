// Errors as lines that a test can compare at once.
#pragma once

#include <string>
#include <vector>

#include "quantport/error.h"

namespace quantport::test {

// "Kind tensor: message" for each error; without a tensor "Kind message".
inline std::vector<std::string> ErrorLines(const Errors& errors) {
  std::vector<std::string> lines;
  for (const Error& error : errors) {
    lines.push_back(std::string(ErrorKindName(error.kind)) + " " + (error.tensor.empty() ? "" : error.tensor + ": ") +
                    error.message);
  }
  return lines;
}

// The same of a result; empty where it holds a value.
template <typename T>
std::vector<std::string> ErrorLines(const Result<T>& result) {
  return result.ok() ? std::vector<std::string>() : ErrorLines(result.errors());
}

}  // namespace quantport::test
