#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "layout.hpp"
#include "verne/comm/host_group.hpp"
#include "verne/io/file.hpp"

namespace verne {

/// XXH3 of one block, by its number among all blocks of a file.
struct BlockChecksum {
  std::int64_t block;
  std::uint64_t value;
};

/// A checkpoint being written beside its final name. Destroyed without `publish`, it leaves nothing.
class Draft {
 public:
  /// Collective. Rank 0, which alone has a layout, makes the file, sets its space aside and writes what the
  /// layout knows. Where one rank fails all throw.
  enum class Machines { one, several };
  Draft(const std::filesystem::path& path, const HostGroup& group, const FileLayout* layout,
        Machines machines = Machines::several);

  const std::filesystem::path& path() const { return path_; }
  /// The file, for every rank to open and to write its bytes at the layout's offsets.
  const std::filesystem::path& temporary() const { return temporary_; }

  /// Collective. All ranks have written and what they wrote is synced: rank 0 adds the checksums, each given
  /// by one rank, and gives the file its name.
  void publish(const HostGroup& group, const FileTensors& tensors, const FileLayout* layout,
               std::span<const BlockChecksum> checksums);

 private:
  std::filesystem::path path_, temporary_;
  std::unique_ptr<AtomicFile> aside_;  ///< on rank 0
};

/// Which of a group's ranks share this rank's kernel, whose memory holds what they wrote until it is synced.
struct KernelMates {
  bool first = true;       ///< this rank is the first of them: it syncs for all
  bool everybody = false;  ///< all ranks run on one kernel
};
/// Collective.
KernelMates find_kernel_mates(const HostGroup& group);

}  // namespace verne
