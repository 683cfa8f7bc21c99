#include "format/match.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "format/forms.h"

namespace quantport {
namespace {

// Beyond what any tensor has, and far enough from 2^64 that no format's factors overflow: a tensor without elements
// may state any size.
constexpr uint64_t kMaxSize = uint64_t{1} << 48;
// As many dimensions as torch and numpy have. Parts list each several times.
constexpr size_t kMaxRank = 64;

// Far more than a model has formats and shapes.
constexpr size_t kMaxRemembered = 1024;

// More spellings of one shape than a message is read for.
constexpr size_t kMaxForms = 4;

bool IsSane(const StoredModule& module) {
  return std::all_of(module.leaves.begin(), module.leaves.end(), [](const StoredLeaf& stored) {
    return stored.shape.size() <= kMaxRank &&
           std::all_of(stored.shape.begin(), stored.shape.end(), [](uint64_t size) { return size <= kMaxSize; });
  });
}

// No one stores a single expert as several, or experts of one row or column: that is a matrix with a dimension too
// many.
bool IsMatrixOfMore(const Proposal& proposal) {
  const Shape& shape = proposal.shape;
  return proposal.format != FormatId::kPlain && shape.size() > 2 &&
         std::find(shape.begin(), shape.end(), 1u) != shape.end();
}

// Of a tensor that is no float, plain takes what MayBeCodes() lets pass: indices, masks.
bool TakesDType(const Proposal& proposal, const Part& part, DType dtype) {
  return part.dtypes.Has(dtype) || (proposal.format == FormatId::kPlain && part.role == Role::kValues);
}

std::string ShapeText(std::span<const uint64_t> shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

bool HasShape(const Form& form, std::span<const uint64_t> shape) {
  return std::equal(form.shape.begin(), form.shape.end(), shape.begin(), shape.end(),
                    [](uint64_t wanted, uint64_t size) { return wanted == kAnySize || wanted == size; });
}

const Form* FindForm(const Part& part, std::span<const uint64_t> shape) {
  const auto it =
      std::find_if(part.forms.begin(), part.forms.end(), [&](const Form& form) { return HasShape(form, shape); });
  return it == part.forms.end() ? nullptr : &*it;
}

// The part that a tensor would be by its name; the value of a bare parameter has none.
const Part* FindPart(const std::vector<Part>& parts, const StoredModule& module, const StoredLeaf& stored) {
  const bool value = &stored == &module.leaves[0];
  const auto it = std::find_if(parts.begin(), parts.end(), [&](const Part& part) {
    if (value != (part.role == Role::kValues)) return false;
    return part.leaf == stored.leaf || (value && stored.leaf.empty());
  });
  return it == parts.end() ? nullptr : &*it;
}

bool HasRequired(const std::vector<Part>& parts, const StoredModule& module) {
  return std::all_of(parts.begin(), parts.end(), [&](const Part& part) {
    return !part.required || part.role == Role::kValues || module.Has(part.leaf);
  });
}

bool Fill(const StoredModule& module, const Proposal& proposal, const std::vector<Part>& parts, Match* match) {
  if (!proposal.misfit.empty() || !HasRequired(parts, module)) return false;
  std::vector<PartMatch> matches;
  matches.reserve(module.leaves.size());
  for (const StoredLeaf& stored : module.leaves) {
    const Part* part = FindPart(parts, module, stored);
    if (part == nullptr || !TakesDType(proposal, *part, stored.dtype)) return false;
    const Form* form = FindForm(*part, stored.shape);
    if (form == nullptr) return false;
    matches.push_back({part->role, form->axes, part->restate});
  }
  *match = {proposal.format, proposal.shape, proposal.variant, std::move(matches), {}};
  return true;
}

// ---- what does not fit ---------------------------------------------------------------------------------------------

// "a, b or c"
std::string Choice(const std::vector<std::string>& words) {
  std::string text;
  for (size_t i = 0; i < words.size(); ++i) {
    if (i > 0) text += i + 1 == words.size() ? " or " : ", ";
    text += words[i];
  }
  return text;
}

std::string_view NameOf(FormatId format) { return FindFormat(format)->name; }

struct Fault {
  enum Kind { kUnknownLeaf, kDType, kShape, kMissing } kind;
  std::string_view leaf;
};

class Explainer {
 public:
  Explainer(const StoredModule& module, const std::vector<Proposal>& proposals) : module_(module) {
    for (const Proposal& proposal : proposals) tries_.push_back(Try(proposal));
  }

  Misfit Run() const {
    if (tries_.empty()) return {FormatId::kUnrecognized, Stored()};
    const auto best = std::max_element(tries_.begin(), tries_.end(),
                                       [](const Attempt& a, const Attempt& b) { return a.fitting < b.fitting; });
    std::vector<std::string> texts;
    for (const Fault& fault : best->faults) texts.push_back(Text(*best, fault));
    if (!best->proposal->misfit.empty()) texts.insert(texts.begin(), best->proposal->misfit);
    return {best->proposal->format, fmt::format("{}", fmt::join(texts, "; "))};
  }

 private:
  struct Attempt {
    const Proposal* proposal;
    std::vector<Part> parts;
    std::vector<Fault> faults;
    int fitting = 0;
  };

  Attempt Try(const Proposal& proposal) const {
    Attempt attempt{&proposal, FamilyOf(proposal.format)->parts(proposal), {}};
    if (!proposal.misfit.empty()) attempt.fitting -= 1;
    for (const StoredLeaf& stored : module_.leaves) {
      const Part* part = FindPart(attempt.parts, module_, stored);
      if (part == nullptr) {
        attempt.faults.push_back({Fault::kUnknownLeaf, stored.leaf});
        continue;
      }
      attempt.fitting += 2;  // known by name, if nothing else
      if (!TakesDType(proposal, *part, stored.dtype)) attempt.faults.push_back({Fault::kDType, stored.leaf});
      if (FindForm(*part, stored.shape) == nullptr) attempt.faults.push_back({Fault::kShape, stored.leaf});
      attempt.fitting += TakesDType(proposal, *part, stored.dtype) + (FindForm(*part, stored.shape) != nullptr);
    }
    for (const Part& part : attempt.parts) {
      if (part.required && part.role != Role::kValues && !module_.Has(part.leaf))
        attempt.faults.push_back({Fault::kMissing, part.leaf});
    }
    return attempt;
  }

  std::string Text(const Attempt& attempt, const Fault& fault) const {
    const std::string_view format = NameOf(attempt.proposal->format);
    if (fault.kind == Fault::kMissing) return fmt::format("{} is missing, which {} has", fault.leaf, format);
    const StoredLeaf& stored = *module_.Find(fault.leaf);
    const std::string_view leaf = fault.leaf.empty() ? "the value" : fault.leaf;
    switch (fault.kind) {
      case Fault::kUnknownLeaf:
        if (attempt.proposal->format == FormatId::kPlain)
          return fmt::format("{} stands beside values of {}", leaf, DTypeName(module_.value().dtype));
        return fmt::format("{} is no tensor of {}", leaf, format);
      case Fault::kDType: {
        std::vector<std::string> names;
        for (const DType dtype : FindPart(attempt.parts, module_, stored)->dtypes.all())
          names.emplace_back(DTypeName(dtype));
        return fmt::format("{} is {}, and {} takes {}", leaf, DTypeName(stored.dtype), format, Choice(names));
      }
      default:
        return fmt::format("{} is {}, and {} of {} has {}", leaf, ShapeText(stored.shape), format,
                           ShapeText(attempt.proposal->shape), Choice(Expected(attempt, stored)));
    }
  }

  // The shapes that the formats of the same family would have of this tensor, the nearest one's first.
  std::vector<std::string> Expected(const Attempt& nearest, const StoredLeaf& stored) const {
    std::vector<std::string> texts;
    const auto add = [&](const Attempt& attempt) {
      const Part* part = FindPart(attempt.parts, module_, stored);
      if (part == nullptr || attempt.proposal->shape != nearest.proposal->shape ||
          FamilyOf(attempt.proposal->format) != FamilyOf(nearest.proposal->format))
        return;
      for (const Form& form : part->forms) {
        std::string text = ShapeText(form.shape);
        if (texts.size() < kMaxForms && std::find(texts.begin(), texts.end(), text) == texts.end())
          texts.push_back(std::move(text));
      }
    };
    add(nearest);
    for (const Attempt& attempt : tries_) add(attempt);
    return texts;
  }

  // All that is stored, where no format comes near.
  std::string Stored() const {
    std::vector<std::string> texts;
    for (const StoredLeaf& stored : module_.leaves) {
      texts.push_back(fmt::format("{} is {} {}", stored.leaf.empty() ? "the value" : stored.leaf,
                                  DTypeName(stored.dtype), ShapeText(stored.shape)));
    }
    return fmt::format("{}: no format has these", fmt::join(texts, ", "));
  }

  const StoredModule& module_;
  std::vector<Attempt> tries_;
};

}  // namespace

const StoredLeaf* StoredModule::Find(std::string_view leaf) const {
  for (const StoredLeaf& stored : leaves) {
    if (stored.leaf == leaf) return &stored;
  }
  return nullptr;
}

std::optional<std::string> StoredModule::Read(const StoredLeaf& leaf) const {
  return options.read ? options.read(leaf.tensor) : std::nullopt;
}

size_t PartsMemo::Hash::operator()(const Proposal& proposal) const {
  size_t hash = static_cast<size_t>(proposal.format) * 31 + proposal.variant.group;
  for (const uint64_t size : proposal.shape) hash = hash * 31 + size;
  return hash;
}

bool PartsMemo::SameParts::operator()(const Proposal& a, const Proposal& b) const {
  return a.format == b.format && a.shape == b.shape && a.variant == b.variant && a.state == b.state;
}

const std::vector<Part>& PartsMemo::Of(const Proposal& proposal) {
  const auto known = parts_.find(proposal);
  if (known != parts_.end()) return known->second;
  // A checkpoint of weights that all differ gains nothing from it, and shall not fill memory with it either.
  if (parts_.size() == kMaxRemembered) parts_.clear();
  return parts_.emplace(proposal, FamilyOf(proposal.format)->parts(proposal)).first->second;
}

Match MatchFormat(const StoredModule& module, PartsMemo* memo) {
  Match match;
  match.shape.assign(module.value().shape.begin(), module.value().shape.end());
  // Most tensors of a model by number, though not by size.
  const DType dtype = module.value().dtype;
  const bool number = dtype == DType::kBF16 || dtype == DType::kF16 || dtype == DType::kF32;
  if (module.leaves.size() == 1 && module.HasOwnName() && number) {
    match.format = FormatId::kPlain;
    match.parts.push_back({Role::kValues, SameDims(match.shape.size()), {}});
    return match;
  }
  if (!IsSane(module)) {
    match.misfit.text = "a tensor states a shape that none has";
    return match;
  }
  std::vector<Proposal> proposals;
  for (const Family* family : Families()) {
    const size_t first = proposals.size();
    family->propose(module, &proposals);
    for (size_t i = first; i < proposals.size(); ++i) {
      if (IsMatrixOfMore(proposals[i]))
        proposals[i].misfit = fmt::format("{} is a matrix with a dimension too many", ShapeText(proposals[i].shape));
      if (Fill(module, proposals[i], memo->Of(proposals[i]), &match)) return match;
    }
  }
  match.misfit = Explainer(module, proposals).Run();
  return match;
}

std::optional<std::string> MissingPart(const StoredModule& module) {
  for (const Family* family : Families()) {
    if (family->missing == nullptr) continue;
    if (auto message = family->missing(module)) return message;
  }
  const StoredLeaf& value = module.value();
  if (!module.HasOwnName() || value.shape.size() < 2) return std::nullopt;
  const bool input_only = module.leaves.size() == 2 && module.leaves[1].leaf == "input_scale";
  const bool packed = value.dtype == DType::kU8 || value.dtype == DType::kF8E4M3 || value.dtype == DType::kF8E5M2;
  if (packed && (input_only || (module.options.quantized && module.leaves.size() == 1)))
    return "weight_scale is missing: the weight is quantized";
  return std::nullopt;
}

}  // namespace quantport
