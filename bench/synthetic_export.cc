#include "synthetic_export.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>
#include <utility>

namespace quantport::bench {
namespace {

constexpr uint64_t kShardBytes = 5'000'000'000;
constexpr int kExperts = 256;
constexpr uint64_t kHidden = 1888;
constexpr uint64_t kExpert = 944;

uint64_t Bytes(const TensorInfo& info) { return TensorBytes(info.dtype, info.shape).value_or(0); }

// Collects one layer after the other and closes a shard when it is full.
class Builder {
 public:
  void Add(std::string name, DType dtype, std::vector<uint64_t> shape) {
    TensorInfo info{std::move(name), dtype, std::move(shape), 0, 0};
    if (used_ + Bytes(info) > kShardBytes) CloseShard();
    used_ += Bytes(info);
    shard_.push_back(std::move(info));
    ++count_;
  }

  void AddLinear(const std::string& module, uint64_t out, uint64_t in) {
    Add(module + ".weight", DType::kBF16, {out, in});
  }

  void AddNvfp4(const std::string& module, uint64_t out, uint64_t in) {
    Add(module + ".weight", DType::kU8, {out, in / 2});
    Add(module + ".weight_scale", DType::kF8E4M3, {out, in / 16});
    Add(module + ".weight_scale_2", DType::kF32, {});
    Add(module + ".input_scale", DType::kF32, {});
  }

  void AddLayer(size_t number, bool dense) {
    const std::string layer = fmt::format("model.language_model.layers.{}", number);
    const std::string attention = layer + ".self_attn";
    AddLinear(attention + ".q_proj", 2560, kHidden);
    AddLinear(attention + ".k_proj", 512, kHidden);
    AddLinear(attention + ".v_proj", 512, kHidden);
    AddLinear(attention + ".o_proj", kHidden, 2560);
    Add(attention + ".q_norm.weight", DType::kBF16, {128});
    Add(attention + ".k_norm.weight", DType::kBF16, {128});
    Add(attention + ".k_proj.k_scale", DType::kF32, {});
    Add(attention + ".v_proj.v_scale", DType::kF32, {});
    Add(layer + ".input_layernorm.weight", DType::kBF16, {kHidden});
    Add(layer + ".post_attention_layernorm.weight", DType::kBF16, {kHidden});
    AddLinear(layer + (dense ? ".mlp" : ".mlp.shared_experts") + ".gate_up_proj", 2 * kExpert, kHidden);
    AddLinear(layer + (dense ? ".mlp" : ".mlp.shared_experts") + ".down_proj", kHidden, kExpert);
    if (dense) return;
    AddLinear(attention + ".indexer.q_proj", 512, kHidden);
    AddLinear(attention + ".indexer.k_proj", 128, kHidden);
    AddLinear(layer + ".mlp.gate", kExperts, kHidden);
    Add(layer + ".mlp.gate.e_score_correction_bias", DType::kBF16, {kExperts});
    for (int expert = 0; expert < kExperts; ++expert) {
      const std::string module = fmt::format("{}.mlp.experts.{}", layer, expert);
      AddNvfp4(module + ".gate_proj", kExpert, kHidden);
      AddNvfp4(module + ".up_proj", kExpert, kHidden);
      AddNvfp4(module + ".down_proj", kHidden, kExpert);
    }
  }

  size_t count() const { return count_; }

  TensorTable Finish() {
    CloseShard();
    for (size_t i = 0; i < table_.shards.size(); ++i) {
      table_.shards[i].name = fmt::format("model-{:05d}-of-{:05d}.safetensors", i + 1, table_.shards.size());
    }
    return std::move(table_);
  }

 private:
  void CloseShard() {
    std::sort(shard_.begin(), shard_.end(), [](const TensorInfo& a, const TensorInfo& b) {
      return std::tuple(-DTypeBits(a.dtype), a.dtype, std::string_view(a.name)) <
             std::tuple(-DTypeBits(b.dtype), b.dtype, std::string_view(b.name));
    });
    const auto number = static_cast<uint32_t>(table_.shards.size());
    uint64_t offset = 0;
    for (TensorInfo& info : shard_) {
      info.begin = offset;
      info.end = offset += Bytes(info);
      table_.tensors.push_back({std::move(info), number});
    }
    // Headers have lengths of their own; planning only adds the start to offsets.
    constexpr uint64_t kDataStart = 4096;
    table_.shards.push_back({"", kDataStart, kDataStart + offset, {{"format", "pt"}}});
    shard_.clear();
    used_ = 0;
  }

  TensorTable table_;
  std::vector<TensorInfo> shard_;
  uint64_t used_ = 0;
  size_t count_ = 0;
};

}  // namespace

TensorTable MakeExport(size_t tensors) {
  constexpr size_t kDenseLayers = 3;
  Builder builder;
  builder.AddLinear("model.language_model.embed_tokens", 49152, kHidden);
  for (size_t layer = 0; layer < kDenseLayers || builder.count() < tensors; ++layer) {
    builder.AddLayer(layer, layer < kDenseLayers);
  }
  builder.Add("model.language_model.norm.weight", DType::kBF16, {kHidden});
  builder.AddLinear("lm_head", 49152, kHidden);
  return builder.Finish();
}

FlatHeader MakeHeader(const TensorTable& table) {
  FlatHeader header;
  uint64_t offset = 0;
  for (const StoredTensor& stored : table.tensors) {
    TensorInfo info = stored.info;
    info.begin = offset;
    info.end = offset += Bytes(info);
    header.tensors.push_back(std::move(info));
  }
  const std::string bytes = *SerializeHeader(header.tensors, {{"format", "pt"}}, "synthetic");
  header.json = bytes.substr(kLengthBytes);
  header.file_bytes = bytes.size() + offset;
  return header;
}

}  // namespace quantport::bench
