#include "draft.hpp"

#include <algorithm>

#include "verne/base/error.hpp"
#include "verne/base/hash.hpp"
#include "verne/comm/agree.hpp"
#include "verne/io/all_to_all.hpp"

namespace verne {
namespace {

/// The checksums of all blocks in order, gathered on rank 0. Throws on every rank unless each is given once.
std::vector<std::uint64_t> gather(const HostGroup& group, std::int64_t blocks,
                                  std::span<const BlockChecksum> own) {
  ByRank<BlockChecksum> to(static_cast<std::size_t>(group.size()));
  to[0].assign(own.begin(), own.end());
  const ByRank<BlockChecksum> received = all_to_all(group, to);
  std::vector<std::uint64_t> all;
  agree_after(group, [&] {
    if (group.rank() != 0) return;
    all.resize(static_cast<std::size_t>(blocks));
    std::vector<bool> known(all.size());
    std::int64_t count = 0;
    for (const auto& checksums : received) {
      for (const BlockChecksum& checksum : checksums) {
        const auto block = static_cast<std::size_t>(checksum.block);
        require(checksum.block >= 0 && checksum.block < blocks && !known[block],
                "block {} of {} was hashed by two ranks", checksum.block, blocks);
        known[block] = true;
        all[block] = checksum.value;
        ++count;
      }
    }
    require(count == blocks, "{} of {} blocks were hashed", count, blocks);
  });
  return all;
}

}  // namespace

Draft::Draft(const std::filesystem::path& path, const HostGroup& group, const FileLayout* layout,
             Machines machines)
    : path_(path) {
  agree_after(group, [&] {
    if (group.rank() != 0) return;
    aside_ = std::make_unique<AtomicFile>(path);
    aside_->file().reserve(layout->image.size());
    layout->image.write_to(aside_->file());
    // Whole pages, with zeros where small tensors come: not after other machines have written there.
    if (machines == Machines::several) aside_->file().sync();
  });
  temporary_ = group.broadcast_text(aside_ ? aside_->temporary().string() : "", 0);
}

void Draft::publish(const HostGroup& group, const FileTensors& tensors, const FileLayout* layout,
                    std::span<const BlockChecksum> checksums) {
  const std::vector<std::uint64_t> all = gather(group, tensors.index().blocks(), checksums);
  agree_after(group, [&] {
    if (group.rank() != 0) return;
    for (const CheckpointGroup part : kAllCheckpointGroups) {
      const FileTensors::Blocks blocks = tensors.blocks(part);
      const auto own = std::span(all).subspan(static_cast<std::size_t>(blocks.first),
                                              static_cast<std::size_t>(blocks.count()));
      if (!own.empty()) aside_->file().write_at(layout->checksums_at[index_of(part)], std::as_bytes(own));
    }
    const std::uint64_t digest = xxh3(std::as_bytes(std::span(all)));
    aside_->file().write_at(layout->digest_at, std::as_bytes(std::span(&digest, 1)));
    aside_->publish();
    aside_.reset();
  });
}

KernelMates find_kernel_mates(const HostGroup& group) {
  // Differs from boot to boot and from machine to machine. Without it every rank counts as alone.
  std::string id;
  try {
    id = read_whole_text("/proc/sys/kernel/random/boot_id", 4096);
  } catch (const Error&) {
    id = fmt::format("rank {}", group.rank());
  }
  const auto own = static_cast<std::int64_t>(xxh3(id));
  const std::vector<std::int64_t> ids = group.all_gather(own);
  return {.first = std::find(ids.begin(), ids.end(), own) - ids.begin() == group.rank(),
          .everybody = std::count(ids.begin(), ids.end(), own) == group.size()};
}

}  // namespace verne
