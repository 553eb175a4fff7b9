#pragma once
// What for_each_block and scatter_blocks share: who holds which elements of a logical tensor, and how
// elements move between local parts and host memory.
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "verne/comm/host_group.hpp"
#include "verne/io/tensor_part.hpp"

namespace verne {

/// Consecutive elements that one holder shares with a logical tensor.
struct Segment {
  std::int64_t global, local, length;
};

/// One part of one rank.
struct Holder {
  int rank;
  std::int64_t part;  ///< index among its rank's parts
  std::vector<ElementRuns> runs;
};

/// A logical tensor and everybody who holds something of it, ordered by rank, then part.
struct HeldTensor {
  TensorInfo info;
  std::vector<Holder> holders;
};

/// InternalError where a run leaves its tensor or its local memory.
void check_part(const TensorPart& part);

/// Everything that the ranks' parts say about logical tensors; the same on every rank. Checks every run
/// against its tensor and its local memory. Collective; throws on every rank.
std::vector<HeldTensor> gather_holders(const HostGroup& group, std::span<const TensorPart> parts);

/// The holder's segments within elements [begin, end), by ascending `global`.
std::vector<Segment> segments_within(const std::vector<ElementRuns>& runs, std::int64_t begin,
                                     std::int64_t end);

/// Which elements each holder provides.
struct Provision {
  const Holder* holder;
  std::vector<Segment> segments;
};
/// Cuts elements [begin, end) of the tensor into disjoint provisions: each element from the first holder that
/// has it, counting ranks cyclically from `first_rank`. `covered` tells how many elements somebody provides.
std::vector<Provision> choose_providers(const HeldTensor& tensor, std::int64_t begin, std::int64_t end,
                                        int first_rank, int ranks, std::int64_t& covered);

/// Copies between a part's local tensor and consecutive elements in host memory of another dtype.
class PartMemory {
 public:
  explicit PartMemory(Queue& queue) : queue_(queue) {}
  /// Fills `to` with the segments' elements one after the other, as `dtype`.
  void gather(const Tensor& local, std::span<const Segment> segments, DType dtype, std::span<std::byte> to);
  /// The inverse.
  void scatter(const Tensor& local, std::span<const Segment> segments, DType dtype,
               std::span<const std::byte> from);

 private:
  Queue& queue_;
  std::vector<std::byte> staging_;
};

}  // namespace verne
