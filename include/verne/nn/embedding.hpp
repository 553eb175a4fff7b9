#pragma once
#include "verne/nn/config.hpp"
#include "verne/nn/step.hpp"

namespace verne {

/// The rows of a vocabulary that one tensor rank holds. Every rank has `rows` rows, the last ones padded
/// inside memory so that any vocabulary can be cut; files never see the padding.
struct VocabularyBlock {
  std::int64_t first = 0;  ///< vocabulary id of row 0
  std::int64_t rows = 0;   ///< in memory, a multiple of 16
  std::int64_t valid = 0;  ///< of them, real ids
};
VocabularyBlock vocabulary_block(std::int64_t vocabulary, int rank, int ranks);

inline constexpr const char* kEmbeddingName = "model.embed_tokens.weight";
inline constexpr const char* kHeadName = "lm_head.weight";
/// A matrix with a row a token, cut among tensor ranks: an embedding or a head.
Parameter vocabulary_parameter(const ModelConfig& config, const TensorParallel& tensor,
                               const std::string& name);

/// Token embedding, its rows cut among tensor ranks.
struct Embedding {
  Parameter weight;
  VocabularyBlock block;

  /// y: [stream tokens, hidden].
  void forward(Step& step, const Tensor& y) const;
  void backward(Step& step, const Tensor& dy) const;
};

Embedding make_embedding(const ModelConfig& config, const TensorParallel& tensor);

}  // namespace verne
