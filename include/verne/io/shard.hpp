#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "verne/comm/host_group.hpp"

namespace verne {

// Token shards: an HDF5 file with
//   /tokens            u32 [tokens]
//   /loss_mask         u8  [tokens], 0 or 1: whether this token counts as a target
//   /document_offsets  u64 [documents + 1], from 0 to `tokens`, never falling
//   /metadata          one JSON string a document
//   /tokenizer/<file>  u8, the tokenizer's files
// and the attributes of "/": format ("verne token shard"), format_version, tokenizer_hash, template,
// documents, tokens, trained_tokens.

inline constexpr std::int64_t kShardFormatVersion = 1;

/// What a shard says about itself.
struct ShardInfo {
  std::string tokenizer_hash;  ///< identifies the tokenizer; empty where records came tokenized
  /// The template's name; none where all records are text, empty where all came tokenized.
  std::string chat_template;
  std::map<std::string, std::string> tokenizer_files;  ///< file name → content
  /// Further attributes of "/" (strings), for example the end token; names must not be those of the format.
  std::map<std::string, std::string> attributes;
};

/// Writes a shard, all ranks together. The documents of rank 0 come first, then those of rank 1, and so on;
/// the file is the same, byte for byte, for any split of them over ranks. Until `finish` each rank keeps what
/// it was given in memory up to a limit, then in an unlinked file beside the output. Nothing appears under
/// the final name before it is whole.
class ShardWriter {
 public:
  static constexpr std::int64_t kMemoryLimitBytes = std::int64_t{256} << 20;

  /// Collective. `info` counts on rank 0 alone. Parents of `path` are made.
  ShardWriter(std::filesystem::path path, const HostGroup& group, ShardInfo info,
              std::int64_t memory_limit_bytes = kMemoryLimitBytes);
  ~ShardWriter();
  ShardWriter(ShardWriter&&) noexcept;

  /// One document, this rank's next; `loss_mask` is as long as `tokens`, `metadata` a JSON text. Local.
  void append(std::span<const std::uint32_t> tokens, std::span<const std::uint8_t> loss_mask,
              std::string_view metadata);

  /// What `info` said of the template, where only the records tell. Local; counts on rank 0, before `finish`.
  void set_chat_template(std::string name);

  struct Counts {
    std::int64_t documents = 0, tokens = 0, trained_tokens = 0;
  };
  /// This rank's counts so far.
  const Counts& counts() const;
  /// Collective. Writes, syncs and publishes; gives the counts over all ranks. SystemError on every rank
  /// where one fails.
  Counts finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Reads a shard that may come from anywhere. The constructor checks structure, format version, sizes and
/// document offsets, all against each other; masks are checked where they are read. Throws UserError naming
/// the file. Reading documents uses pread and may be called from several threads; `metadata` may not (HDF5).
class ShardReader {
 public:
  /// Where `expected_tokenizer_hash` is given and the shard was made by another tokenizer: UserError. Shards
  /// without a tokenizer (records that came tokenized) pass.
  explicit ShardReader(std::filesystem::path path,
                       const std::optional<std::string>& expected_tokenizer_hash = {});
  ~ShardReader();
  ShardReader(ShardReader&&) noexcept;

  const std::filesystem::path& path() const;
  const ShardInfo& info()
      const;  ///< tokenizer files are read on the first call of `tokenizer_files`, not here
  std::map<std::string, std::string> tokenizer_files() const;
  std::int64_t documents() const;
  std::int64_t tokens() const;
  std::int64_t trained_tokens() const;
  /// documents() + 1 values; document d is tokens [offsets[d], offsets[d + 1]).
  std::span<const std::uint64_t> offsets() const;

  /// Tokens [first, first + to.size()) of the whole shard.
  void read_tokens(std::int64_t first, std::span<std::uint32_t> to) const;
  /// Throws UserError for a value that is neither 0 nor 1.
  void read_loss_mask(std::int64_t first, std::span<std::uint8_t> to) const;
  /// Metadata of documents [first, first + count).
  std::vector<std::string> metadata(std::int64_t first, std::int64_t count) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// True where the file is a token shard (by its `format` attribute); false for other HDF5 files and other
/// content.
bool is_token_shard(const std::filesystem::path& path);

}  // namespace verne
