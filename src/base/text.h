// Small string helpers that several stages share.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace quantport {

// `text` with control characters, DEL and invalid UTF-8 written as \xNN, and characters that turn the direction of
// text, end lines or can't be seen as \uNNNN: safe on a terminal, and nothing in it looks like something else.
std::string Printable(std::string_view text);

// "a.b.c" -> {"a", "b", "c"}; an empty text gives one empty part, as Python's str.split does.
std::vector<std::string_view> SplitDots(std::string_view text);

// The order transformers iterates a state dict in (dot_natural_key): parts between dots are compared one
// by one, numbers as numbers before any text, and text with trailing digits by text and then by number.
bool DotNaturalLess(std::string_view a, std::string_view b);

// `text` with every `from` replaced by `to`, left to right, as Python's str.replace.
std::string ReplaceAll(std::string_view text, std::string_view from, std::string_view to);

// `text` with the first `from` replaced by `to`; `text` itself where `from` does not occur.
std::string ReplaceFirst(std::string_view text, std::string_view from, std::string_view to);

// "1.24 GB" (decimal) for people.
std::string HumanBytes(uint64_t bytes);

// `text` in at most `width` characters, its middle replaced by "..." where it has more: the ends of a module's name say
// most. Expects valid UTF-8.
std::string ShortenMiddle(std::string_view text, size_t width);

// True where `text` is one or more ASCII digits.
bool IsDigits(std::string_view text);

// Splits "model.layers.0.mlp.weight" at its last dot; without a dot the module is empty.
struct ModuleAndLeaf {
  std::string_view module;
  std::string_view leaf;
};
ModuleAndLeaf SplitLeaf(std::string_view name);

// `module` + "." + `leaf`, or `leaf` alone where the module is the root.
std::string JoinName(std::string_view module, std::string_view leaf);

// Python's fnmatch.fnmatchcase: * ? [seq] [!seq], over the whole text, dots not special.
bool GlobMatch(std::string_view pattern, std::string_view text);
// The same within a budget: takes what it looks at from `steps`, and gives up, with nothing, once they are used up.
std::optional<bool> GlobMatch(std::string_view pattern, std::string_view text, uint64_t* steps);

}  // namespace quantport
