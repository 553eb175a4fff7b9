#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace verne {

enum class Family { llama, qwen2, qwen3, mistral, nemotron };
std::string_view name(Family family);  ///< the `model_type`: "llama", ...

enum class NormKind {
  rms,           ///< RMSNorm
  layer_norm_1p  ///< LayerNorm with bias whose stored gain is the effective one minus 1
};
enum class MlpKind { swiglu, squared_relu };

/// Rotary embedding. Scaling formulas: transformers' modeling_rope_utils.
struct RopeConfig {
  enum class Scaling { none, linear, llama3, yarn };
  double theta = 1e4;
  std::int64_t rotary_dim = 0;  ///< components of a head that rotate, from the first on; even
  Scaling scaling = Scaling::none;
  double factor = 1;
  double low_freq_factor = 1, high_freq_factor = 4;   ///< llama3
  std::int64_t original_max_position_embeddings = 0;  ///< llama3 and yarn
  double beta_fast = 32, beta_slow = 1;  ///< yarn: turns over the original length between which it blends
  bool truncate = true;                  ///< yarn: these bounds on whole components
  double attention_factor = 1;           ///< yarn: multiplies cosines and sines
};

/// The shape and mathematics of a dense decoder.
struct ModelConfig {
  Family family = Family::llama;
  std::int64_t vocab_size = 0, hidden_size = 0, intermediate_size = 0;
  std::int64_t layers = 0, heads = 0, kv_heads = 0, head_dim = 0;
  std::int64_t max_positions = 0;
  NormKind norm = NormKind::rms;
  MlpKind mlp = MlpKind::swiglu;
  bool qk_norm = false;                   ///< RMSNorm over each query and key head before the rotation
  bool qkv_bias = false, o_bias = false;  ///< of the q, k and v projections; of the attention's output
  bool mlp_bias = false;                  ///< of gate, up and down
  bool tied = false;                      ///< lm_head.weight is embed_tokens.weight
  double norm_eps = 1e-6;
  RopeConfig rope;
  std::vector<std::int64_t> windows;  ///< per layer: attention window, 0 for none
  double initializer_range = 0.02;
  std::vector<std::int64_t> eos_token_ids;
  std::optional<std::int64_t> bos_token_id;
  std::string stored_dtype;  ///< `dtype` or `torch_dtype`; empty where absent
};

/// Reads config.json of transformers 4 or 5; null means absent. Throws UserError naming `origin` and the key:
/// an unknown or disagreeing architecture, a wrong type or value, a field that changes the mathematics and is
/// not supported.
ModelConfig parse_model_config(std::string_view json_text, const std::string& origin);

}  // namespace verne
