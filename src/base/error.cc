#include "quantport/error.h"

#include "base/text.h"

namespace quantport {

std::string_view ErrorKindName(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kIo:
      return "IoError";
    case ErrorKind::kInvalidHeader:
      return "InvalidHeaderError";
    case ErrorKind::kInvalidIndex:
      return "InvalidIndexError";
    case ErrorKind::kInvalidConfig:
      return "InvalidConfigError";
    case ErrorKind::kInvalidMapping:
      return "InvalidMappingError";
    case ErrorKind::kInvalidRecipe:
      return "InvalidRecipeError";
    case ErrorKind::kUnsupportedRecipe:
      return "UnsupportedRecipeError";
    case ErrorKind::kUnknownVersion:
      return "UnknownVersionError";
    case ErrorKind::kUnknownArchitecture:
      return "UnknownArchitectureError";
    case ErrorKind::kQuantConversionUnsupported:
      return "QuantConversionUnsupportedError";
    case ErrorKind::kMissingCompanion:
      return "MissingCompanionError";
    case ErrorKind::kNameCollision:
      return "NameCollisionError";
    case ErrorKind::kUndecidedNames:
      return "UndecidedNamesError";
    case ErrorKind::kReferenceMismatch:
      return "ReferenceMismatchError";
    case ErrorKind::kVerification:
      return "VerificationError";
    case ErrorKind::kOutputExists:
      return "OutputExistsError";
    case ErrorKind::kLinkedFile:
      return "LinkedFileError";
    case ErrorKind::kLocked:
      return "LockedError";
    case ErrorKind::kUnfinishedChange:
      return "UnfinishedChangeError";
    case ErrorKind::kCancelled:
      return "CancelledError";
  }
  return "Error";
}

std::string Error::ToString() const {
  std::string line;
  if (!file.empty()) line += Printable(file) + ": ";
  if (!tensor.empty()) line += Printable(tensor) + ": ";
  line += Printable(message);
  if (!hint.empty()) line += " (" + Printable(hint) + ")";
  return line;
}

}  // namespace quantport
