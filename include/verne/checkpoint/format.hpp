#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "verne/io/blocks.hpp"

namespace verne {

// A checkpoint is one HDF5 file without a layout: whole logical tensors under their Hugging Face names.
//   /model/<name>                                    as the tensor's dtype says
//   /optimizer/{master,exp_avg,exp_avg_sq}/<name>    trainable tensors; absent in weights-only checkpoints
//   /checksums/model, /checksums/optimizer/<group>   u64: XXH3 of each block of kBlockBytes of each tensor's
//                                                    row-major bytes, tensors in byte order of their names
//   /checksums/digest                                u64 [1]: XXH3 of all checksums, groups in the order
//                                                    given above
//   /index                                           u8: all tensors and where they begin (index.hpp), so
//                                                    that opening does not look into every dataset
//   /state, /config, /frozen                         JSON texts; /frozen only where there are frozen tensors
//   /tokenizer/<file>                                u8
// and the attributes of "/": format ("verne checkpoint"), format_version. Files without /index are of this
// version too.

inline constexpr std::int64_t kCheckpointFormatVersion = 1;

/// What a run needs to go on besides tensors: step, consumed_samples, consumed_tokens, seeds, the keys that
/// identify the run, chosen matmul algorithms, the monitor's value... The keys are the trainer's; `step` is
/// read here too.
struct CheckpointState {
  nlohmann::ordered_json values = nlohmann::ordered_json::object();

  /// 0 where there is none (an imported model).
  std::int64_t step() const;
};

/// Files that travel with a model.
struct SideFiles {
  std::string config;                            ///< config.json, as it was
  std::map<std::string, std::string> tokenizer;  ///< tokenizer and generation files: name → content
};

/// A tensor that was not trained and is not stored: where it came from and what it must hash to (its block
/// checksums' XXH3).
struct FrozenTensor {
  std::string name;
  std::uint64_t checksum = 0;
  std::string source;
};

enum class CheckpointGroup { model, master, exp_avg, exp_avg_sq };
inline constexpr int kCheckpointGroups = 4;
/// "/model", "/optimizer/master", ...
std::string_view path_of(CheckpointGroup group);
inline constexpr std::array kAllCheckpointGroups{CheckpointGroup::model, CheckpointGroup::master,
                                                 CheckpointGroup::exp_avg, CheckpointGroup::exp_avg_sq};
/// "/checksums/model", "/checksums/optimizer/master", ...
std::string checksums_path_of(CheckpointGroup group);
inline constexpr std::string_view kCheckpointFormat = "verne checkpoint";

/// Something of each group.
template <class Item>
using ByGroup = std::array<Item, kCheckpointGroups>;
inline std::size_t index_of(CheckpointGroup group) {
  return static_cast<std::size_t>(group);
}

/// All tensors of a file in its order: by group, within one in byte order of their names.
class FileTensors {
 public:
  /// Sorts each group. InternalError where a name stands twice in one.
  explicit FileTensors(ByGroup<std::vector<TensorInfo>> groups);

  /// Tensors and blocks of all groups, counted through.
  const BlockIndex& index() const { return index_; }
  std::span<const TensorInfo> tensors(CheckpointGroup group) const;
  /// A group's first tensor in the index.
  std::size_t first(CheckpointGroup group) const { return first_[index_of(group)]; }
  /// Blocks [first, last) of a group.
  struct Blocks {
    std::int64_t first, last;
    std::int64_t count() const { return last - first; }
  };
  Blocks blocks(CheckpointGroup group) const;

 private:
  std::array<std::size_t, kCheckpointGroups + 1> first_{};
  BlockIndex index_;
};

}  // namespace verne
