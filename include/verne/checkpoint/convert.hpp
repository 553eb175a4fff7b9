#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "verne/checkpoint/checkpoint.hpp"
#include "verne/comm/host_group.hpp"
#include "verne/tensor/tensor.hpp"

namespace verne {

/// A tensor that a model has.
struct ExpectedTensor {
  std::string name;
  Shape shape;
};

struct ImportOptions {
  std::filesystem::path input;   ///< a Hugging Face folder
  std::filesystem::path output;  ///< a checkpoint file; parents are made
  /// All parameters of the model family; where the embedding is tied, without the head.
  std::vector<ExpectedTensor> expected;
  /// Names that may stand in the source and are not stored where they hold what another tensor does: name →
  /// that tensor (a tied "lm_head.weight" → "model.embed_tokens.weight"). UserError where their bytes differ.
  std::map<std::string, std::string> duplicates;
  std::optional<DType> dtype;  ///< else as the source has each tensor
  /// Written into /state beside step 0.
  std::string source;
};

/// Checks the source's tensors against `expected`: every one consumed, every parameter filled, shapes equal.
/// Throws one UserError naming what is missing, left over and of another shape. `rotary_emb.inv_freq` buffers
/// are passed over.
void check_tensors(const TensorSource& source, const std::vector<ExpectedTensor>& expected,
                   const std::map<std::string, std::string>& duplicates);

/// Collective. Throws UserError unless each duplicate that the source has holds what its twin does.
void check_duplicates(const TensorSource& source, const std::map<std::string, std::string>& duplicates,
                      const HostGroup& group);

/// Collective. Hugging Face folder → checkpoint with its config.json, tokenizer and generation files,
/// streamed: memory of a rank is a few blocks.
void import_model(const ImportOptions& options, const HostGroup& group);

struct ExportOptions {
  std::filesystem::path checkpoint;
  std::filesystem::path output;  ///< a folder, replaced as a whole
  /// Jinja text for tokenizer_config.json, and the token that ends an answer for generation_config.json.
  std::optional<std::string> chat_template;
  std::optional<std::int64_t> end_token_id;
  std::int64_t shard_bytes = 5'000'000'000;
  /// Further files for the folder: name → content (used_inputs.ini).
  std::map<std::string, std::string> extra_files;
};
/// Collective. Checkpoint → Hugging Face folder: /model as stored (every block is verified on the way),
/// config.json as it came except dtype and vocab_size. A checkpoint with frozen tensors has no whole model:
/// UserError.
void export_model(const ExportOptions& options, const HostGroup& group);

/// config.json for tensors of `dtype` and an embedding of `vocab_size` rows (0: not known). Every byte is
/// kept but the values of `dtype` and `torch_dtype`, where they are there, and of `vocab_size`, where it is
/// less.
std::string updated_config(const std::string& config, DType dtype, std::int64_t vocab_size);

}  // namespace verne
