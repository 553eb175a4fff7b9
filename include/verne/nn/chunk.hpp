#pragma once
#include <cstdint>
#include <vector>

#include "verne/nn/config.hpp"

namespace verne {

/// A run of a model's layers, [first_layer, last_layer).
struct Chunk {
  std::int64_t first_layer = 0, last_layer = 0;
  bool embedding = false, head = false;

  std::int64_t layers() const { return last_layer - first_layer; }
  friend bool operator==(const Chunk&, const Chunk&) = default;
};
Chunk whole_model(const ModelConfig& config);

/// The model in `count` consecutive chunks whose largest is as cheap as can be, and among such cuts the most
/// even one. Costs are the time of a layer, of the head's three matmuls and of the embedding, in
/// floating-point operations a token of documents of `seq_length`. The first and the last chunk may have no
/// layer. Throws UserError where there are fewer than count − 2 layers.
std::vector<Chunk> split_layers(const ModelConfig& config, int count, std::int64_t seq_length);

}  // namespace verne
