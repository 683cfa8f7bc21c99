#include "prepare/state_views.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace quantport {
namespace {

using Strides = std::vector<uint64_t>;

uint64_t ElementBits(DType dtype) { return static_cast<uint64_t>(DTypeBits(dtype)); }

Strides RowMajor(const std::vector<uint64_t>& shape) {
  Strides strides(shape.size());
  uint64_t stride = 1;
  for (size_t dim = shape.size(); dim-- > 0;) {
    strides[dim] = stride;
    stride *= shape[dim];
  }
  return strides;
}

// A box that `count` boxes in the order of the array make up together: each begins as far after the one before it.
bool Continues(const StateBox& first, const StateBox& previous, const StateBox& next, uint64_t count) {
  const auto same = [](const StateBox::Dim& a, const StateBox::Dim& b) {
    return a.extent == b.extent && a.from_stride == b.from_stride && a.to_stride == b.to_stride;
  };
  if (next.tensor != first.tensor || next.step != first.step || next.from < previous.from || next.to < previous.to ||
      !std::equal(next.dims.begin(), next.dims.end(), first.dims.begin(), first.dims.end(), same))
    return false;
  return count == 1 || (next.from - previous.from == (previous.from - first.from) / (count - 1) &&
                        next.to - previous.to == (previous.to - first.to) / (count - 1));
}

// Rows that were moved one by one are thousands of boxes; at regular distances they are one with a dimension more.
std::vector<StateBox> Joined(std::vector<StateBox> boxes) {
  std::vector<StateBox> out;
  for (size_t begin = 0; begin < boxes.size();) {
    size_t end = begin + 1;
    while (end < boxes.size() && Continues(boxes[begin], boxes[end - 1], boxes[end], end - begin)) ++end;
    StateBox box = boxes[begin];
    if (end - begin > 1) {
      box.dims.insert(box.dims.begin(), {end - begin, boxes[begin + 1].from - box.from, boxes[begin + 1].to - box.to});
    }
    out.push_back(std::move(box));
    begin = end;
  }
  return out;
}

StateArray ArrayOf(const Array& array) {
  StateArray out{array.dtype, array.shape, {}};
  const uint64_t bits = ElementBits(array.dtype);
  const Strides strides = RowMajor(array.shape);
  for (const Block& block : array.blocks) {
    StateBox box{block.tensor == kZeros ? kNoTensor : block.tensor, block.step, block.offset / bits, 0, {}};
    for (size_t dim = 0; dim < block.dims.size(); ++dim) {
      box.to += block.dims[dim].origin * strides[dim];
      box.dims.push_back({block.dims[dim].extent, block.dims[dim].stride / bits, strides[dim]});
    }
    out.boxes.push_back(std::move(box));
  }
  // Twice: rows of a head, and heads.
  for (int i = 0; i < 2 && out.boxes.size() > 1; ++i) out.boxes = Joined(std::move(out.boxes));
  return out;
}

bool IsOneBox(const Array& array) {
  if (array.blocks.size() != 1) return false;
  const Block& block = array.blocks[0];
  return block.tensor != kZeros && block.step == 0 &&
         std::all_of(block.dims.begin(), block.dims.end(), [](const BlockDim& dim) { return dim.origin == 0; });
}

bool IsWhole(const Array& array, const TensorInfo& stored) {
  const Block& block = array.blocks[0];
  if (block.offset != 0 || array.shape != stored.shape) return false;
  uint64_t stride = ElementBits(array.dtype);
  for (size_t dim = array.shape.size(); dim-- > 0;) {
    if (array.shape[dim] != 1 && block.dims[dim].stride != stride) return false;
    stride *= array.shape[dim];
  }
  return true;
}

class ViewBuilder {
 public:
  ViewBuilder(const TensorTable& table, Conversion* conversion, StateDictPlan* plan)
      : table_(table), conversion_(*conversion), plan_(*plan) {}

  void Build() {
    const std::vector<uint32_t> order = Order();
    plan_.names.reserve(order.size());
    plan_.whole.reserve(order.size());
    seen_whole_.resize(table_.tensors.size());
    for (const uint32_t i : order) Add(conversion_.tensors[i]);
    AddSeries();
    AddSharedScales();
  }

 private:
  // Parts of one weight come one after the other; one that is of no tensor goes where the part before it does.
  std::vector<uint32_t> Order() const {
    std::vector<uint32_t> first(conversion_.tensors.size());
    for (size_t i = 0; i < first.size(); ++i) {
      first[i] = i == 0 ? 0 : first[i - 1];
      uint32_t least = kNoTensor;
      for (const Block& block : conversion_.tensors[i].array.blocks) {
        if (block.tensor != kZeros) least = std::min(least, block.tensor);
      }
      if (least != kNoTensor) first[i] = least;
    }
    std::vector<uint32_t> order(first.size());
    std::iota(order.begin(), order.end(), 0U);
    std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return first[a] < first[b]; });
    return order;
  }

  void Add(ConvertedTensor& tensor) {
    const auto result = static_cast<uint32_t>(plan_.names.size());
    plan_.names.push_back(std::move(tensor.name));
    plan_.whole.push_back(kNoTensor);
    Array& array = tensor.array;
    if (!array.literal.empty() || array.blocks.empty()) {
      plan_.literals.push_back(
          {result, array.dtype, std::move(array.shape),
           std::string(reinterpret_cast<const char*>(array.literal.data()), array.literal.size())});
    } else if (!IsOneBox(array)) {
      plan_.joined.push_back({result, ArrayOf(array)});
    } else if (const uint32_t source = array.blocks[0].tensor; IsWhole(array, table_.tensors[source].info)) {
      plan_.whole.back() = source;
      if (seen_whole_[source]) plan_.copied.push_back(result);
      seen_whole_[source] = true;
    } else {
      AddView(result, array);
    }
  }

  struct View {
    uint64_t offset = 0;
    uint32_t result = 0;
  };
  // Views of one tensor that are alike.
  struct Family {
    uint32_t tensor = 0;
    std::vector<uint64_t> shape;
    Strides strides;
    std::vector<View> views;
  };

  void AddView(uint32_t result, Array& array) {
    const Block& block = array.blocks[0];
    const uint64_t bits = ElementBits(array.dtype);
    Strides strides;
    for (const BlockDim& dim : block.dims) strides.push_back(dim.stride / bits);
    const View view{block.offset / bits, result};
    // Results of one tensor follow each other, in a few forms at most: those of one parameter's experts.
    for (auto family = families_.rbegin(); family != families_.rend() && family->tensor == block.tensor; ++family) {
      if (family->shape != array.shape || family->strides != strides) continue;
      family->views.push_back(view);
      return;
    }
    families_.push_back({block.tensor, std::move(array.shape), std::move(strides), {view}});
  }

  void AddSeries() {
    for (Family& family : families_) {
      std::stable_sort(family.views.begin(), family.views.end(),
                       [](const View& a, const View& b) { return a.offset < b.offset; });
      // Elements that several results have: the first of them keeps the tensor's own.
      std::vector<View> rest = std::move(family.views);
      for (bool copied = false; !rest.empty(); copied = true) {
        std::vector<View> once;
        std::vector<View> again;
        for (const View& view : rest)
          (once.empty() || once.back().offset != view.offset ? once : again).push_back(view);
        AddProgressions(family, once, copied);
        rest = std::move(again);
      }
    }
  }

  void AddProgressions(const Family& family, const std::vector<View>& views, bool copied) {
    for (size_t begin = 0; begin < views.size();) {
      StateSeries series{family.tensor, views[begin].offset, 0, family.shape, family.strides, {}, copied};
      size_t end = begin + 1;
      if (end < views.size()) series.distance = views[end].offset - views[begin].offset;
      while (end < views.size() && views[end].offset - views[end - 1].offset == series.distance) ++end;
      for (size_t i = begin; i < end; ++i) series.results.push_back(views[i].result);
      plan_.series.push_back(std::move(series));
      begin = end;
    }
  }

  void AddSharedScales() {
    const SharedScales& shared = conversion_.shared;
    const auto name = [&](const Array& array) {
      return array.blocks.empty() ? std::string() : table_.tensors[array.blocks[0].tensor].info.name;
    };
    for (const EqualBytes& check : shared.checks)
      plan_.checks.push_back({check.leaf, name(check.a), name(check.b), ArrayOf(check.a), ArrayOf(check.b)});
    for (const ScaleMerge& merge : shared.merges) {
      StateMerge out{merge.leaf, merge.reciprocal, merge.scalars[0].dtype, {}, {}, {}};
      for (const Array& scalar : merge.scalars) {
        const Block& block = scalar.blocks[0];
        out.tensors.push_back(block.tensor);
        out.offsets.push_back(block.offset / ElementBits(scalar.dtype));
        out.names.push_back(name(scalar));
      }
      plan_.merges.push_back(std::move(out));
    }
    for (const ScaleStep& step : shared.steps)
      plan_.steps.push_back({static_cast<StateStep::Kind>(step.kind), step.merge, step.part, DType::kU8});
    for (const StateJoined& joined : plan_.joined) {
      for (const StateBox& box : joined.array.boxes) {
        if (box.step != 0) plan_.steps[box.step - 1].dtype = joined.array.dtype;
      }
    }
  }

  const TensorTable& table_;
  Conversion& conversion_;
  StateDictPlan& plan_;
  std::vector<Family> families_;
  std::vector<bool> seen_whole_;  // for each tensor of the dict: a result is it
};

}  // namespace

void AddViews(const TensorTable& table, Conversion* conversion, StateDictPlan* plan) {
  ViewBuilder(table, conversion, plan).Build();
}

}  // namespace quantport
