#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <iosfwd>
#include <map>
#include <optional>
#include <set>
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
  /// Names that may stand in the source and are not stored where they hold what another tensor does: name → that tensor
  /// (a tied "lm_head.weight" → "model.embed_tokens.weight"). UserError where their bytes differ.
  std::map<std::string, std::string> duplicates;
  std::optional<DType> dtype;  ///< else as the source has each tensor
  std::string config;          ///< config.json as it is to be stored
};

/// Checks the source's tensors against `expected`: every one consumed, every parameter filled, shapes equal. Throws one
/// UserError naming what is missing, left over and of another shape. `rotary_emb.inv_freq` buffers are passed over.
void check_tensors(const TensorSource& source, const std::vector<ExpectedTensor>& expected,
                   const std::map<std::string, std::string>& duplicates);

/// Collective. Hugging Face folder → checkpoint, streamed: memory of a rank is a few blocks.
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
/// Collective. Checkpoint → Hugging Face folder: /model as stored, config.json as it came except dtype and vocab_size.
void export_model(const ExportOptions& options, const HostGroup& group);

/// config.json for tensors of `dtype` and an embedding of `vocab_size` rows: every key and value kept, only `dtype` or
/// `torch_dtype` (whichever is there; `dtype` where neither is) and `vocab_size` changed.
std::string updated_config(const std::string& config, DType dtype, std::int64_t vocab_size);

enum class InspectVerify { no, yes };
/// Prints a checkpoint, a Hugging Face folder or a token shard: tensors, shapes, dtypes, state, sizes. With `verify` reads
/// everything and checks every checksum, offset and mask; throws UserError at what is wrong.
void inspect_show(const std::filesystem::path& path, InspectVerify verify, std::ostream& out);

enum class Comparison { equal, different };
/// Prints the largest absolute and relative difference of each tensor (checkpoints and folders in any pairing), or the
/// first documents that differ (two shards).
Comparison inspect_compare(const std::filesystem::path& left, const std::filesystem::path& right, std::ostream& out);

}  // namespace verne
