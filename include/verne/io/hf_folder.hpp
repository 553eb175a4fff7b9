#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "verne/comm/host_group.hpp"
#include "verne/io/file.hpp"
#include "verne/io/safetensors.hpp"
#include "verne/io/tensor_part.hpp"

namespace verne {

/// The folder of a model that a user names: a folder, or a hub id ("Qwen/Qwen3-8B") that the local Hugging
/// Face cache holds (HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub; the snapshot of
/// refs/main). UserError that says where was looked. Nothing is downloaded.
std::filesystem::path resolve_model_folder(const std::string& path_or_hub_id);

/// The files beside config.json and weights that travel with a model, those that `folder` has: tokenizer
/// files, chat template, generation_config.json. Plain names.
std::vector<std::string> side_files(const std::filesystem::path& folder);

/// A small text file of a folder; no value where there is none. UserError where it cannot be read.
std::optional<std::string> read_side_file(const std::filesystem::path& folder, const std::string& name);

/// The weights of a Hugging Face folder: model.safetensors, else the shards that model.safetensors.index.json
/// names; other safetensors in the folder are not looked at.
class HfFolder final : public TensorSource {
 public:
  /// Opens and validates every shard. UserError where weights are missing or broken, where the index names a
  /// file outside the folder or one that is not there, or where index and shards disagree about which tensors
  /// are where.
  explicit HfFolder(const std::filesystem::path& folder);
  /// Collective: rank 0 opens and validates, and tells the others, which open a file where they first read of
  /// it. All throw where one fails.
  HfFolder(const std::filesystem::path& folder, const HostGroup& group);

  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  const std::vector<UnsupportedTensor>& unsupported() const override { return unsupported_; }
  void read(const TensorInfo& tensor, std::int64_t offset, std::span<std::byte> to) const override;
  void will_read_block(const TensorInfo& tensor, std::int64_t block) const override;
  std::string origin() const override { return folder_.string(); }

  const std::filesystem::path& folder() const { return folder_; }
  /// The safetensors files (and index) that hold the weights.
  const std::vector<std::filesystem::path>& files() const { return files_; }
  /// config.json as it stands. UserError where there is none.
  std::string config_text() const;

 private:
  void add_shard(SafetensorsFile shard);
  const SafetensorsFile& shard_with(const TensorInfo& tensor) const;
  std::string pack() const;
  void unpack(std::string_view packed);

  std::filesystem::path folder_;
  std::vector<std::filesystem::path> files_;
  std::vector<SafetensorsFile> shards_;
  std::vector<TensorInfo> tensors_;
  std::vector<UnsupportedTensor> unsupported_;
  std::map<std::string, std::size_t, std::less<>> shard_of_;
};

/// Which tensors go to which file: filled greedily in the given order, a new shard where the next tensor
/// would pass `max_shard_bytes`; a larger tensor has a shard to itself. One shard is model.safetensors,
/// several are model-00001-of-0000n.safetensors.
struct HfShard {
  std::string file;
  std::vector<TensorInfo> tensors;
};
std::vector<HfShard> plan_hf_shards(const std::vector<TensorInfo>& tensors, std::int64_t max_shard_bytes);

inline constexpr std::int64_t kMaxShardBytes = 5'000'000'000;

/// Writes a Hugging Face folder, all ranks together; it appears whole or not at all and replaces an older one
/// (a folder with a config.json) in one step. Without `publish`, nothing stays.
class HfFolderWriter {
 public:
  /// Rank 0 makes the files, their headers and their whole size: a full disk is known now. `tensors` is the
  /// same on all ranks; the group must outlive this. Collective; every rank throws where one fails.
  HfFolderWriter(const HostGroup& group, const std::filesystem::path& folder,
                 const std::vector<TensorInfo>& tensors, std::int64_t max_shard_bytes = kMaxShardBytes);
  ~HfFolderWriter();
  HfFolderWriter(const HfFolderWriter&) = delete;
  HfFolderWriter& operator=(const HfFolderWriter&) = delete;

  /// A piece of a tensor; on any rank, each piece on one.
  void write(const TensorInfo& tensor, std::int64_t offset, std::span<const std::byte> bytes);
  /// A file beside the weights, `name` without folders. May be called on all ranks: rank 0 writes.
  void add_file(const std::string& name, std::string_view content);
  /// Syncs, writes the index, and gives the folder its name. Collective; every rank throws where one fails.
  void publish();

 private:
  const HostGroup& group_;
  std::optional<AtomicDirectory> directory_;  ///< on rank 0
  std::filesystem::path temporary_;
  std::vector<HfShard> shards_;
  std::vector<File> files_;
  struct Place {
    std::size_t shard;
    std::int64_t begin;
    std::int64_t bytes;
  };
  std::map<std::string, Place, std::less<>> places_;
};

}  // namespace verne
