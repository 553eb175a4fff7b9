#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "verne/comm/host_group.hpp"
#include "verne/io/tensor_part.hpp"

namespace verne {

/// Tensors travel between ranks and files in blocks of this many bytes of their row-major data as stored; the
/// last block of a tensor is shorter. Checksums are taken over the same blocks.
inline constexpr std::int64_t kBlockBytes = std::int64_t{16} << 20;

/// 0 for a tensor without elements.
std::int64_t block_count(const TensorInfo& tensor);
/// Bytes of block `block`.
std::int64_t block_bytes(const TensorInfo& tensor, std::int64_t block);

/// The logical tensors that the ranks' parts speak of, each once, in the order of rank 0's parts, then what
/// rank 1 adds, …: the same on every rank. InternalError where ranks disagree about dtype or shape.
/// Collective.
std::vector<TensorInfo> tensors_of_parts(const HostGroup& group, std::span<const TensorPart> parts);

using BlockVisitor = std::function<void(const TensorInfo&, std::int64_t block, std::span<const std::byte>)>;
using BlockProvider = std::function<void(const TensorInfo&, std::int64_t block, std::span<std::byte>)>;

/// Gathers every block of the logical tensors from the ranks' parts, converted to the stored dtype, and calls
/// `visit` with it on the one rank that owns it: counting all blocks of all tensors in the order of
/// tensors_of_parts, block b belongs to rank b mod size. A rank sees its blocks in that order. Of replicas
/// the first one cyclically from the owner provides. `visit` must not be collective. Memory of a rank: its
/// block and about 64 MiB in flight each way. Collective. Where one rank fails every rank throws (see agree);
/// an element that no rank holds is an InternalError.
void for_each_block(const HostGroup& group, Queue& queue, std::span<const TensorPart> parts,
                    const BlockVisitor& visit);

/// The other way round: `provide` fills a block, in the stored dtype, on the rank that owns it, and every
/// rank that holds elements of it receives them into its part, converted to the part's own dtype. Otherwise
/// as for_each_block.
void scatter_blocks(const HostGroup& group, Queue& queue, std::span<const TensorPart> parts,
                    const BlockProvider& provide);

}  // namespace verne
