#pragma once
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "verne/checkpoint/convert.hpp"
#include "verne/checkpoint/reader.hpp"
#include "verne/host/options.hpp"
#include "verne/io/hf_folder.hpp"
#include "verne/nn/config.hpp"
#include "verne/text/tokenizer.hpp"

namespace verne {

/// A model as a deck names it: a Hugging Face folder, a hub id in the local cache, a Verne checkpoint, or a
/// config alone (random weights). Checked before any weight is read: architecture, every tensor's presence
/// and shape.
class ModelSource {
 public:
  /// Collective; throws UserError on every rank. `announce` takes one line where the choice is not obvious (a
  /// run's best or last checkpoint).
  static ModelSource open(const ModelSection& section, const HostGroup& group,
                          const std::function<void(const std::string&)>& announce);

  const ModelConfig& config() const { return config_; }
  const SideFiles& side_files() const {
    return side_files_;
  }                                                      ///< config.json's text and the tokenizer's files
  const std::string& origin() const { return origin_; }  ///< for messages and the run's identity
  bool random() const { return !folder_ && !checkpoint_; }
  /// The stored weights. InternalError where they are random.
  const TensorSource& weights() const;
  /// Files that the manifest fingerprints.
  const std::vector<std::filesystem::path>& files() const { return files_; }
  /// The model's own tokenizer, where it has one.
  std::optional<Tokenizer> tokenizer() const;
  /// What a checkpoint says of the template that was trained; empty elsewhere.
  const CheckpointState& state() const { return state_; }

  /// Makes room for a tokenizer of `vocab_size` tokens: new rows hold the mean of the stored ones.
  void grow_vocabulary(std::int64_t vocab_size);

 private:
  /// What the section names, before it is opened: nothing where weights are random.
  struct Named {
    std::optional<std::filesystem::path> folder;
    bool checkpoint = false;
  };
  Named resolve(const ModelSection& section);
  void open_folder(const std::filesystem::path& folder);
  void open_checkpoint(const std::filesystem::path& file, const HostGroup& group);
  void open_config(const std::filesystem::path& file);

  ModelConfig config_;
  SideFiles side_files_;
  std::string origin_;
  std::vector<std::filesystem::path> files_;
  std::unique_ptr<HfFolder> folder_;
  std::unique_ptr<CheckpointReader> checkpoint_;
  std::unique_ptr<TensorSource> grown_;
  CheckpointState state_;
};

/// What a family's files hold, in the shape that import's and train's checks take.
std::vector<ExpectedTensor> expected_tensors(const ModelConfig& config);
/// Names that repeat another tensor: a tied head.
std::map<std::string, std::string> duplicate_tensors(const ModelConfig& config);

}  // namespace verne
