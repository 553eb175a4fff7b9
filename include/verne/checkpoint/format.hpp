#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "verne/io/redistribute.hpp"

namespace verne {

// A checkpoint is one HDF5 file without a layout: whole logical tensors under their Hugging Face names.
//   /model/<name>                                    as the tensor's dtype says
//   /optimizer/{master,exp_avg,exp_avg_sq}/<name>    trainable tensors; absent in weights-only checkpoints
//   /checksums/model, /checksums/optimizer/<group>   u64: XXH3 of each block of kBlockBytes of each tensor's
//   row-major
//                                                    bytes, tensors in byte order of their names
//   /checksums/digest                                u64 [1]: XXH3 of all checksums, groups in the order
//   given above /state, /config, /frozen                         JSON texts; /frozen only where there are
//   frozen tensors /tokenizer/<file>                                u8
// and the attributes of "/": format ("verne checkpoint"), format_version.

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

/// The tensors of one group as a file orders them, and the place of each one's checksums among the group's.
struct ChecksumIndex {
  /// Sorts `tensors` by name.
  explicit ChecksumIndex(std::vector<TensorInfo> tensors);
  std::vector<TensorInfo> tensors;
  std::map<std::string, std::size_t, std::less<>> position;  ///< of a name in `tensors`
  std::vector<std::int64_t> first;                           ///< checksum of a tensor's first block
  std::int64_t blocks = 0;
};

}  // namespace verne
