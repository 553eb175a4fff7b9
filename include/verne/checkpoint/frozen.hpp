#pragma once
#include <cstdint>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "verne/checkpoint/format.hpp"
#include "verne/comm/host_group.hpp"
#include "verne/io/tensor_part.hpp"

namespace verne {

/// A source that remembers the XXH3 of every block that is read through it, so that frozen tensors are known
/// by checksum without being read again: load_parts reads through it, then checksums are asked for.
class HashedSource final : public TensorSource {
 public:
  /// The source must outlive this.
  explicit HashedSource(const TensorSource& source);

  const std::vector<TensorInfo>& tensors() const override { return source_.tensors(); }
  const std::vector<UnsupportedTensor>& unsupported() const override { return source_.unsupported(); }
  std::string origin() const override { return source_.origin(); }
  void read(const TensorInfo& tensor, std::int64_t offset, std::span<std::byte> to) const override {
    source_.read(tensor, offset, to);
  }
  void will_read_block(const TensorInfo& tensor, std::int64_t block) const override {
    source_.will_read_block(tensor, block);
  }
  void read_block(const TensorInfo& tensor, std::int64_t block, std::span<std::byte> to) const override;

  /// The checksum of each named tensor (FrozenTensor::checksum), in that order, on every rank. Blocks that no
  /// rank has read yet are read now, each by one. Collective; UserError on every rank where the source has no
  /// such tensor.
  std::vector<std::uint64_t> checksums(const HostGroup& group, std::span<const std::string> names) const;

 private:
  const TensorSource& source_;
  std::unordered_map<std::string_view, std::size_t> position_;
  mutable std::mutex mutex_;
  mutable std::map<std::pair<std::size_t, std::int64_t>, std::uint64_t> hashes_;  ///< by tensor and block
};

/// Collective. UserError on every rank, naming tensors, unless the source holds each frozen tensor as it was
/// when the checkpoint was made.
void check_frozen(const std::vector<FrozenTensor>& frozen, const HashedSource& source,
                  const HostGroup& group);

}  // namespace verne
