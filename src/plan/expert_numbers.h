// Experts held against each other before they become one tensor: their numbers, and how many there are.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "layout/recognize.h"
#include "mapping/resolve.h"
#include "mapping/transform.h"
#include "quantport/error.h"
#include "quantport/warning.h"

namespace quantport {

// The linears of one name of a container's experts: what becomes one stack.
struct NumberedList {
  std::string linear;  // "w1", "gate_proj"
  std::vector<std::optional<uint64_t>> numbers;
};

// Stacking closes gaps, so that an expert behind one would answer to another row of the router. `container` and `noun`
// ("expert") are for the message. Errors: kQuantConversionUnsupported naming what is missing or stands twice, unless
// every list holds 0 to N - 1, each once.
Status CheckNumbering(std::string_view container, std::string_view noun, const std::vector<NumberedList>& lists);

// "<container>.<i>.<linear>", of a linear stored for one expert, and "<container>.<parameter>", of a stack, -> the
// container. `key` is the name of the value.
std::string ContainerOfExpert(std::string_view key);
std::string ContainerOfStack(std::string_view key);

// The dimension along which experts stand in the stack that `operations` make or take apart.
std::optional<size_t> ExpertDimension(const std::vector<Operation>& operations);

// The containers that a conversion stacks, or whose stacks it takes apart.
class StackedContainers {
 public:
  StackedContainers(const TensorTable& table, const std::vector<WeightUnit>& units,
                    const std::vector<SubModel>& submodels)
      : table_(table), units_(units), submodels_(submodels) {}

  // A parameter of `count` experts. `container` is its container's name in memory, `stored` the one among the units'
  // names, `unit` the first that it is made of or comes from.
  void Add(const std::string& container, const std::string& stored, uint64_t count, size_t unit);

  // Errors: kQuantConversionUnsupported where the parameters of a container hold different numbers of experts, or
  // another number than the config of their model says and the rows of their router. Without a router, a warning.
  void Check(Errors* errors, std::vector<Warning>* warnings) const;

 private:
  struct Container {
    std::string stored;
    uint64_t count = 0;
    size_t unit = 0;
    std::optional<std::pair<uint64_t, size_t>> other;  // a parameter with another count
  };
  struct Router {
    std::string name;
    uint64_t rows = 0;
    bool named = false;  // as routers are
  };
  using Routers = std::map<std::string, std::vector<Router>>;  // of a block

  const std::vector<ExpertCount>& CountsFor(const std::string& container) const;
  Routers FindRouters() const;
  Error Refusal(size_t unit, std::string message, std::string hint) const;

  const TensorTable& table_;
  const std::vector<WeightUnit>& units_;
  const std::vector<SubModel>& submodels_;
  std::map<std::string, Container> containers_;
};

}  // namespace quantport
