#include "plan/published_names.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "base/text.h"
#include "mapping/renamer.h"
#include "mapping/targets.h"

namespace quantport {
namespace {

// Numbers that no model has stand for the "*" of a published name, so that they are found again in what loading makes
// of it: the k-th is kStand + k.
constexpr uint64_t kStand = 1'000'000'000'000;

uint64_t NumberOf(std::string_view digits) {
  uint64_t number = 0;
  const bool fits = std::from_chars(digits.data(), digits.data() + digits.size(), number).ec == std::errc();
  return fits ? number : UINT64_MAX;
}

// A published name with numbers in the places of its "*".
std::string Filled(const std::string& folded, const std::vector<uint64_t>& numbers) {
  std::string name;
  size_t next = 0;
  for (const std::string_view part : SplitDots(folded)) {
    if (!name.empty()) name += '.';
    if (part == "*") {
      name += std::to_string(numbers[next++]);
    } else {
      name += part;
    }
  }
  return name;
}

// "model.layers.3.mlp" -> "model.layers.#.mlp", and 3.
struct Shape {
  std::string text;
  std::vector<uint64_t> numbers;
};

Shape ShapeOf(std::string_view name) {
  Shape shape;
  for (const std::string_view part : SplitDots(name)) {
    if (!shape.text.empty()) shape.text += '.';
    if (IsDigits(part)) shape.numbers.push_back(NumberOf(part));
    shape.text += IsDigits(part) ? std::string_view("#") : part;
  }
  return shape;
}

// What a published name is called in memory: a name whose numbers stand for those of the published one, or are its own.
struct Template {
  const std::string* published;
  size_t stars;
  std::vector<uint64_t> numbers;  // of the name in memory
};

class Templates {
 public:
  Templates(const PublishedNames& published, std::string_view base_prefix) : base_prefix_(base_prefix) {
    for (const std::string& name : published.names) {
      const auto parts = SplitDots(name);
      const auto stars = static_cast<size_t>(std::count(parts.begin(), parts.end(), "*"));
      std::vector<uint64_t> stands(stars);
      for (size_t k = 0; k < stars; ++k) stands[k] = kStand + k;
      stood_.push_back(Filled(name, stands));
      entries_.push_back({&name, stars});
    }
  }

  Status Load(const std::vector<Transform>& transforms) {
    auto load = Renamer::Create(transforms, Renamer::Direction::kLoad);
    if (!load) return load.errors();
    std::vector<size_t> order(entries_.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return DotNaturalLess(stood_[a], stood_[b]); });
    for (const size_t i : order) {
      const RenamedKey renamed = load->Rename(stood_[i]);
      std::vector<std::string> in_memory = {renamed.name, stood_[i]};
      if (renamed.converter >= 0) {
        for (std::string& name : ExpandTargets(renamed.name, load->converter(renamed.converter).targets()))
          in_memory.push_back(std::move(name));
      }
      for (const std::string& name : in_memory) {
        Add(name, i);
        // Loading adds a base model's prefix, or takes it away, where the model has the name only so.
        if (base_prefix_.empty()) continue;
        Add(JoinName(base_prefix_, name), i);
        if (name.starts_with(base_prefix_ + ".")) Add(name.substr(base_prefix_.size() + 1), i);
      }
    }
    return {};
  }

  // The published names that the in-memory name `key` is of, where a "*" that it does not have is any of 0 to `count`
  // - 1.
  void Expand(std::string_view key, uint64_t count, std::set<std::string>* names) const {
    const Shape shape = ShapeOf(key);
    const auto found = by_shape_.find(shape.text);
    if (found == by_shape_.end()) return;
    for (const Template& candidate : found->second) {
      std::vector<uint64_t> numbers(candidate.stars, UINT64_MAX);
      bool fits = true;
      for (size_t i = 0; i < shape.numbers.size(); ++i) {
        const uint64_t number = candidate.numbers[i];
        if (number >= kStand && number - kStand < candidate.stars) {
          numbers[number - kStand] = shape.numbers[i];
        } else {
          fits &= number == shape.numbers[i];
        }
      }
      const auto open = std::find(numbers.begin(), numbers.end(), UINT64_MAX);
      // Only the places in one list go away at load.
      if (!fits || std::count(numbers.begin(), numbers.end(), UINT64_MAX) > 1) continue;
      if (open == numbers.end()) {
        names->insert(Filled(*candidate.published, numbers));
        continue;
      }
      for (*open = 0; *open < count; ++*open) names->insert(Filled(*candidate.published, numbers));
    }
  }

 private:
  void Add(const std::string& in_memory, size_t entry) {
    // A converter's name has "*" where its target does.
    Shape shape = ShapeOf(ReplaceAll(in_memory, "*", "0"));
    by_shape_[shape.text].push_back({entries_[entry].first, entries_[entry].second, std::move(shape.numbers)});
  }

  const std::string base_prefix_;
  std::vector<std::string> stood_;
  std::vector<std::pair<const std::string*, size_t>> entries_;
  std::map<std::string, std::vector<Template>> by_shape_;
};

// Of each name, as many experts as the export shows: the places of its pieces, or its first dimension.
std::map<std::string_view, uint64_t> CountsOf(const ConversionInput& input, const std::vector<EngineKey>& keys) {
  std::map<std::string_view, uint64_t> counts;
  for (size_t i = 0; i < keys.size(); ++i) {
    const std::vector<uint64_t>& shape = (*input.units)[i].weight.shape;
    uint64_t& count = counts[keys[i].key];
    count = std::max(count, keys[i].piece ? keys[i].piece->index + 1 : shape.size() == 3 ? shape[0] : 0);
  }
  return counts;
}

const LeafSpelling* SpellingOf(const std::string& leaf, const std::string& name) {
  const auto all = LeafSpellings();
  const auto found = std::find_if(all.begin(), all.end(), [&](const LeafSpelling& spelling) {
    return spelling.leaf == leaf && spelling.name == name;
  });
  return found == all.end() ? nullptr : &*found;
}

}  // namespace

Result<ReferenceView> ExpandPublishedNames(const PublishedNames& published, const ConversionInput& input,
                                           const std::vector<EngineKey>& keys) {
  Templates templates(published, input.model->base_model_prefix);
  if (auto status = templates.Load(input.model->transforms); !status) return status.errors();
  std::set<std::string> names;
  // More experts than a model has would be as many names.
  constexpr uint64_t kMostExperts = 1 << 16;
  for (const auto& [key, count] : CountsOf(input, keys)) templates.Expand(key, std::min(count, kMostExperts), &names);
  ReferenceView view;
  view.keys.assign(names.begin(), names.end());
  for (const auto& [leaf, name] : published.leaves) view.leaves.emplace(leaf, SpellingOf(leaf, name));
  return view;
}

}  // namespace quantport
