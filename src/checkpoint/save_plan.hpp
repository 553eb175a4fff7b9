#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "draft.hpp"
#include "verne/checkpoint/checkpoint.hpp"
#include "verne/io/part_blocks.hpp"

namespace verne {

/// What saves of the same tensors and the same parts share.
class SavePlan {
 public:
  /// Collective. InternalError on every rank where a rank's list of tensors differs, a part does not belong
  /// to it, or an element is not given exactly once.
  SavePlan(const HostGroup& group, const CheckpointContent& content);
  SavePlan(const SavePlan&) = delete;
  SavePlan& operator=(const SavePlan&) = delete;

  /// Collective. Whether this plan serves for `content` too, on every rank.
  bool serves(const HostGroup& group, const CheckpointContent& content) const;
  /// Makes the layout that of `content`: made anew, or with another state. Collective.
  void lay_out(const HostGroup& group, const CheckpointContent& content, const std::string& name);

  const FileTensors& tensors() const { return tensors_; }
  /// Their shares are the blocks that this rank writes to.
  const PartBlocks& parts() const { return parts_; }
  /// Blocks that several ranks write and this rank reads back.
  const std::vector<std::int64_t>& divided() const { return divided_; }
  /// Byte of the file where each tensor begins.
  const std::vector<std::int64_t>& offsets() const { return offsets_; }
  const FileLayout* layout() const { return layout_.get(); }  ///< on rank 0
  const KernelMates& mates() const { return mates_; }

 private:
  std::uint64_t fingerprint_, texts_ = 0;
  FileTensors tensors_;
  PartBlocks parts_;
  std::vector<std::int64_t> divided_, offsets_;
  std::unique_ptr<FileLayout> layout_;
  KernelMates mates_;
};

}  // namespace verne
