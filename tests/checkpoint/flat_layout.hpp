// What ranks own when parameters lie flat, in reverse order, in buckets that are cut into equal blocks: the
// shapes that checkpoints of real runs have, at any number of ranks and without a model.
#pragma once
#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "verne/base/checked.hpp"
#include "verne/base/error.hpp"
#include "verne/io/tensor_part.hpp"

namespace verne::testing {

struct FlatTensor {
  enum class Cut { rows, columns, none };
  std::string name;
  Shape shape;
  Cut cut = Cut::rows;  ///< among tensor ranks
};

/// Tensors that share a reduce group: every tensor rank's cut of them lies flat, and its data ranks own equal
/// blocks of each bucket.
struct FlatPool {
  std::vector<FlatTensor> tensors;
  int tensor_rank = 0, tensor_ranks = 1;
  int data_rank = 0, data_ranks = 1;
};

/// The part of a run whose local elements lie in [begin, end), moved by `shift`: a piece of a row, rows, a
/// piece of a row.
inline void clip_run(const ElementRuns& run, std::int64_t begin, std::int64_t end, std::int64_t shift,
                     std::vector<ElementRuns>& to) {
  const auto piece = [&](std::int64_t row) {
    const std::int64_t local = run.local + row * run.local_stride;
    const std::int64_t from = std::max(local, begin), until = std::min(local + run.length, end);
    if (from < until)
      to.push_back({run.global + row * run.global_stride + (from - local), from + shift, until - from});
  };
  if (run.count == 1) return piece(0);
  const std::int64_t stride = run.local_stride;
  const std::int64_t first =
      std::clamp<std::int64_t>(divide_round_up(begin - run.local, stride), 0, run.count);
  const std::int64_t last = std::clamp<std::int64_t>((end - run.local) / stride, 0, run.count);
  if (first > last) return piece(last);
  if (first > 0) piece(first - 1);
  if (first < last)
    to.push_back({run.global + first * run.global_stride, run.local + first * stride + shift, run.length,
                  last - first, run.global_stride, stride});
  if (last < run.count) piece(last);
}

class FlatLayout {
 public:
  static constexpr std::int64_t kBucketElements = 40'000'000, kAlignment = 64;

  explicit FlatLayout(std::vector<FlatPool> pools) : pools_(std::move(pools)) {
    for (const FlatPool& pool : pools_) place(pool);
  }
  std::int64_t owned_elements() const { return owned_; }

  /// What this rank owns; `local` holds owned_elements().
  std::vector<TensorPart> parts(DType stored, const Tensor& local) const {
    std::vector<TensorPart> parts;
    for (const Piece& piece : pieces_) {
      TensorPart part{piece.tensor->name, stored, piece.tensor->shape, local, {}};
      clip_run(piece.run, piece.begin, piece.end, piece.owned - piece.begin, part.runs);
      parts.push_back(std::move(part));
    }
    return parts;
  }

 private:
  /// Elements [begin, end) of what a tensor rank holds of a tensor, owned here from `owned` on.
  struct Piece {
    const FlatTensor* tensor;
    ElementRuns run;
    std::int64_t begin, end, owned;
  };
  struct Placed {
    const FlatTensor* tensor;
    ElementRuns run;
    std::int64_t offset, count;
  };

  static ElementRuns held(const FlatTensor& tensor, const FlatPool& pool) {
    const std::int64_t total = tensor.shape.count(), t = pool.tensor_rank, n = pool.tensor_ranks;
    if (tensor.cut == FlatTensor::Cut::none) return {.length = total};
    const std::int64_t rows = tensor.shape[0], width = total / rows;
    require((tensor.cut == FlatTensor::Cut::rows ? rows : width) % n == 0, "{} cut among {} ranks",
            tensor.name, n);
    if (tensor.cut == FlatTensor::Cut::rows) return {.global = rows / n * t * width, .length = total / n};
    return {.global = width / n * t,
            .length = width / n,
            .count = rows,
            .global_stride = width,
            .local_stride = width / n};
  }

  void place(const FlatPool& pool) {
    std::vector<Placed> bucket;
    std::int64_t size = 0;
    const auto close = [&] {
      const std::int64_t block = round_up(size, kAlignment * pool.data_ranks) / pool.data_ranks;
      const std::int64_t first = block * pool.data_rank;
      for (const Placed& placed : bucket) {
        const std::int64_t begin = std::max<std::int64_t>(first - placed.offset, 0);
        const std::int64_t end = std::min(first + block - placed.offset, placed.count);
        if (begin < end)
          pieces_.push_back({placed.tensor, placed.run, begin, end, owned_ + placed.offset + begin - first});
      }
      owned_ += block;
      bucket.clear();
      size = 0;
    };
    for (auto tensor = pool.tensors.rbegin(); tensor != pool.tensors.rend(); ++tensor) {
      if (size >= kBucketElements) close();
      const ElementRuns run = held(*tensor, pool);
      bucket.push_back({&*tensor, run, size, run.length * run.count});
      size += round_up(run.length * run.count, kAlignment);
    }
    if (size > 0) close();
  }

  std::vector<FlatPool> pools_;
  std::vector<Piece> pieces_;
  std::int64_t owned_ = 0;
};

/// A dense decoder. Norms are apart: every tensor rank holds them whole.
struct DenseModel {
  std::int64_t layers, hidden, intermediate, kv, vocabulary;

  std::vector<FlatTensor> cut_tensors() const {
    using Cut = FlatTensor::Cut;
    std::vector<FlatTensor> tensors{{"model.embed_tokens.weight", {vocabulary, hidden}, Cut::rows}};
    for (std::int64_t layer = 0; layer < layers; ++layer) {
      const std::string at = "model.layers." + std::to_string(layer) + ".";
      tensors.push_back({at + "self_attn.q_proj.weight", {hidden, hidden}, Cut::rows});
      tensors.push_back({at + "self_attn.k_proj.weight", {kv, hidden}, Cut::rows});
      tensors.push_back({at + "self_attn.v_proj.weight", {kv, hidden}, Cut::rows});
      tensors.push_back({at + "self_attn.o_proj.weight", {hidden, hidden}, Cut::columns});
      tensors.push_back({at + "mlp.gate_proj.weight", {intermediate, hidden}, Cut::rows});
      tensors.push_back({at + "mlp.up_proj.weight", {intermediate, hidden}, Cut::rows});
      tensors.push_back({at + "mlp.down_proj.weight", {hidden, intermediate}, Cut::columns});
    }
    tensors.push_back({"lm_head.weight", {vocabulary, hidden}, Cut::rows});
    return tensors;
  }
  std::vector<FlatTensor> norms() const {
    std::vector<FlatTensor> tensors;
    for (std::int64_t layer = 0; layer < layers; ++layer) {
      const std::string at = "model.layers." + std::to_string(layer) + ".";
      for (const char* name : {"input_layernorm.weight", "post_attention_layernorm.weight"})
        tensors.push_back({at + name, {hidden}, FlatTensor::Cut::none});
    }
    tensors.push_back({"model.norm.weight", {hidden}, FlatTensor::Cut::none});
    return tensors;
  }
  /// What rank `rank` of tensor × data ranks owns.
  FlatLayout layout(int rank, int tensor, int data) const {
    const int t = rank % tensor, d = rank / tensor;
    return FlatLayout({{cut_tensors(), t, tensor, d, data}, {norms(), 0, 1, rank, tensor * data}});
  }
  std::vector<TensorInfo> tensors(DType dtype) const {
    std::vector<TensorInfo> infos;
    for (const auto& list : {cut_tensors(), norms()})
      for (const FlatTensor& tensor : list) infos.push_back({tensor.name, dtype, tensor.shape});
    return infos;
  }
};

}  // namespace verne::testing
