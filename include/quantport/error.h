// Errors as values. A Result<T> holds either a T or every problem that was found, never neither.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace quantport {

enum class ErrorKind : uint8_t {
  kIo,                          // the operating system refused: missing file, disk full, permission
  kInvalidHeader,               // a safetensors file that breaks the format
  kInvalidIndex,                // model.safetensors.index.json contradicts the files beside it
  kInvalidConfig,               // config.json or hf_quant_config.json can't be read as what it should be
  kInvalidMapping,              // a conversion mapping file is malformed
  kInvalidRecipe,               // a quantization recipe is malformed
  kUnsupportedRecipe,           // a recipe, or what it asks for a module, can't be carried out
  kUnknownVersion,              // no mapping of that transformers version is built in
  kUnknownArchitecture,         // the registry has no such model class
  kQuantConversionUnsupported,  // a transform can't be carried through a stored layout
  kMissingCompanion,            // a quantized weight without a scale it needs
  kNameCollision,               // two tensors would get one name
  kUndecidedNames,              // other hub names would load to the same tensors, and nothing says which the hub has
  kReferenceMismatch,           // the result contradicts the reference checkpoint
  kVerification,                // what was written is not what was planned
  kOutputExists,                // the target is there already
  kLinkedFile,                  // a symbolic link, or a file with other names, that is not to be changed unasked
  kLocked,                      // another process is changing the folder
  kUnfinishedChange,            // a change in place was interrupted: Recover finishes it or takes it back
  kCancelled,                   // the caller asked to stop
};

// The name programs match on, for example "QuantConversionUnsupportedError".
std::string_view ErrorKindName(ErrorKind kind);

// One problem: what is wrong, where, and what to do about it. Empty fields do not apply.
struct Error {
  ErrorKind kind = ErrorKind::kIo;
  std::string message;
  std::string file;
  std::string tensor;
  std::string hint;

  // One line, "file: tensor: message (hint)", with control characters escaped: names come from
  // strangers' files and end on terminals.
  std::string ToString() const;
};

using Errors = std::vector<Error>;

// A value of type T, or a non-empty list of errors.
template <typename T>
class [[nodiscard]] Result {
 public:
  using Value = std::conditional_t<std::is_void_v<T>, std::monostate, T>;

  Result() requires std::is_void_v<T> : state_(std::in_place_index<0>) {}
  template <typename U = Value>
  requires(std::is_convertible_v<U&&, Value> && !std::is_void_v<T> && !std::is_same_v<std::decay_t<U>, Error> &&
           !std::is_same_v<std::decay_t<U>, Errors> && !std::is_same_v<std::decay_t<U>, Result>) Result(U&& value)
      : state_(std::in_place_index<0>, std::forward<U>(value)) {}  // NOLINT(google-explicit-constructor)
  Result(Error error)
      : state_(std::in_place_index<1>, Errors{std::move(error)}) {}             // NOLINT(google-explicit-constructor)
  Result(Errors errors) : state_(std::in_place_index<1>, std::move(errors)) {}  // NOLINT(google-explicit-constructor)

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  Value& operator*() & { return std::get<0>(state_); }
  const Value& operator*() const& { return std::get<0>(state_); }
  Value&& operator*() && { return std::get<0>(std::move(state_)); }
  Value* operator->() { return &std::get<0>(state_); }
  const Value* operator->() const { return &std::get<0>(state_); }

  Errors& errors() { return std::get<1>(state_); }
  const Errors& errors() const { return std::get<1>(state_); }

 private:
  std::variant<Value, Errors> state_;
};

using Status = Result<void>;

}  // namespace quantport
