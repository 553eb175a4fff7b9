#include "verne/comm/mpi_communicator.hpp"

#include <mpi.h>

#include <algorithm>
#include <cstring>

#include "collective_check.hpp"
#include "mpi_check.hpp"
#include "mpi_messages.hpp"
#include "verne/base/checked.hpp"
#include "verne/tensor/cpu_queue.hpp"

namespace verne {
namespace {

/// Memory for incoming blocks; longer tensors go through it in rounds.
constexpr std::int64_t kStagingBytes = std::int64_t{32} << 20;
/// Up to this size an all_reduce gathers everything everywhere in one call.
constexpr std::int64_t kSmallBytes = 16384;
constexpr std::int64_t kReduceGrain = 8192;  // elements a thread
constexpr int kBlockTag = 0;                 // messages of `exchange` have another

template <class T>
struct Accumulator {
  using Type = T;
};
template <>
struct Accumulator<bf16> {
  using Type = float;
};

template <class Wide>
Wide combine(Wide a, Wide b, Reduce reduce) {
  if (reduce == Reduce::sum) return static_cast<Wide>(a + b);
  return b > a || b != b ? b : a;  // once NaN, `a` stays: nothing is greater
}

/// out[i] = blocks[0][i] ∘ blocks[1][i] ∘ …, in the order of the ranks. `out` may be one of the blocks.
template <class T>
void reduce_blocks(CpuQueue& queue, std::byte* out, const std::vector<const std::byte*>& blocks,
                   std::int64_t count, Reduce reduce) {
  using Wide = typename Accumulator<T>::Type;
  auto* result = reinterpret_cast<T*>(out);
  queue.parallel_for(count, kReduceGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      auto total = static_cast<Wide>(reinterpret_cast<const T*>(blocks[0])[i]);
      for (std::size_t r = 1; r < blocks.size(); ++r) {
        total = combine(total, static_cast<Wide>(reinterpret_cast<const T*>(blocks[r])[i]), reduce);
      }
      result[i] = static_cast<T>(total);
    }
  });
}

void reduce_blocks(CpuQueue& queue, DType type, std::byte* out, const std::vector<const std::byte*>& blocks,
                   std::int64_t count, Reduce reduce) {
  switch (type) {
    case DType::f32:
      return reduce_blocks<float>(queue, out, blocks, count, reduce);
    case DType::f64:
      return reduce_blocks<double>(queue, out, blocks, count, reduce);
    case DType::bf16:
      return reduce_blocks<bf16>(queue, out, blocks, count, reduce);
    case DType::i32:
      return reduce_blocks<std::int32_t>(queue, out, blocks, count, reduce);
    case DType::u8:
      return reduce_blocks<std::uint8_t>(queue, out, blocks, count, reduce);
    default:
      throw InternalError(fmt::format("no reduction of {}", name(type)));
  }
}

std::size_t index(int rank) {
  return static_cast<std::size_t>(rank);
}

CpuQueue& cpu_queue(const Communicator& communicator, Queue& queue) {
  check_queue(communicator, queue, QueueKind::cpu);
  return static_cast<CpuQueue&>(queue);
}

/// Of a call that has blocked until everything was done.
Pending done(const char* operation) {
  return Pending({}, operation);
}

std::string call_text(const Communicator& communicator, const char* operation, const char* call) {
  return fmt::format("{} on communicator {}: {}", operation, communicator.name(), call);
}

}  // namespace

MpiCommunicator::MpiCommunicator(std::string name, const HostGroup& group)
    : Communicator(std::move(name), group.rank(), group.size()) {
  group.collective("MPI_Comm_dup", [&] { group_ = HostGroup(group.communicator()); });
}

MpiCommunicator::Bytes MpiCommunicator::staging(std::int64_t bytes) {
  if (bytes > staging_bytes_) {
    staging_ = std::make_unique_for_overwrite<std::byte[]>(static_cast<std::size_t>(bytes));
    staging_bytes_ = bytes;
  }
  return {staging_.get(), static_cast<std::size_t>(bytes)};
}

void MpiCommunicator::swap_blocks(const std::vector<ConstBytes>& to, const std::vector<Bytes>& from,
                                  const char* operation) {
  std::vector<MPI_Request> requests;
  for (int shift = 1; shift < size(); ++shift) {
    const int source = (rank() - shift + size()) % size();
    for_each_piece(std::ssize(from[index(source)]), [&](std::int64_t begin, int bytes) {
      check_mpi(MPI_Irecv(from[index(source)].data() + begin, bytes, MPI_BYTE, source, kBlockTag,
                          group_.communicator(), &requests.emplace_back()),
                call_text(*this, operation, "MPI_Irecv"));
    });
  }
  for (int shift = 1; shift < size(); ++shift) {
    const int target = (rank() + shift) % size();
    for_each_piece(std::ssize(to[index(target)]), [&](std::int64_t begin, int bytes) {
      check_mpi(MPI_Isend(to[index(target)].data() + begin, bytes, MPI_BYTE, target, kBlockTag,
                          group_.communicator(), &requests.emplace_back()),
                call_text(*this, operation, "MPI_Isend"));
    });
  }
  check_mpi(MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE),
            call_text(*this, operation, "MPI_Waitall"));
}

// A round takes `round` elements of each rank's block: the ranks swap them, each adds the ones of its own
// block, and (for longer tensors) the sums are gathered into place.
Pending MpiCommunicator::all_reduce(Queue& queue, const Tensor& tensor, Reduce reduce) {
  check_all_reduce(*this, tensor, reduce);
  CpuQueue& cpu = cpu_queue(*this, queue);
  const std::int64_t element = bits(tensor.dtype()) / 8, count = tensor.count();
  if (size() == 1 || count == 0) return done("all_reduce");
  const int self = rank();
  std::vector<const std::byte*> blocks(index(size()));

  if (tensor.bytes() <= kSmallBytes) {
    const Bytes all = staging(tensor.bytes() * size());
    const auto bytes = static_cast<int>(tensor.bytes());
    check_mpi(
        MPI_Allgather(tensor.raw(), bytes, MPI_BYTE, all.data(), bytes, MPI_BYTE, group_.communicator()),
        call_text(*this, "all_reduce", "MPI_Allgather"));
    for (int r = 0; r < size(); ++r) blocks[index(r)] = all.data() + r * tensor.bytes();
    reduce_blocks(cpu, tensor.dtype(), tensor.raw(), blocks, count, reduce);
    return done("all_reduce");
  }

  const std::int64_t block = divide_round_up<std::int64_t>(count, size());
  const std::int64_t round = std::min(block, std::max<std::int64_t>(1, kStagingBytes / element / size()));
  const Bytes incoming = staging(round * element * size());
  for (std::int64_t begin = 0; begin < block; begin += round) {
    // Elements [first(r), first(r) + length(r)) of rank r's block; blocks at the end may be short or empty.
    const auto first = [&](int r) { return std::min(count, r * block + begin); };
    const auto length = [&](int r) {
      return std::min(count, std::min((r + 1) * block, r * block + begin + round)) - first(r);
    };
    const auto bytes_at = [&](int r) {
      const std::int64_t bytes = std::max<std::int64_t>(0, length(r)) * element;
      return Bytes(tensor.raw() + first(r) * element, static_cast<std::size_t>(bytes));
    };
    std::vector<ConstBytes> to(index(size()));
    std::vector<Bytes> from(index(size()));
    const Bytes own = bytes_at(self);
    for (int r = 0; r < size(); ++r) {
      to[index(r)] = bytes_at(r);
      from[index(r)] = incoming.subspan(static_cast<std::size_t>(r * round * element), own.size());
      blocks[index(r)] = r == self ? own.data() : from[index(r)].data();
    }
    swap_blocks(to, from, "all_reduce");
    reduce_blocks(cpu, tensor.dtype(), own.data(), blocks, std::ssize(own) / element, reduce);
    for (int r = 0; r < size(); ++r) {
      to[index(r)] = own;
      from[index(r)] = bytes_at(r);
    }
    swap_blocks(to, from, "all_reduce");
  }
  return done("all_reduce");
}

Pending MpiCommunicator::all_gather(Queue& queue, const Tensor& out, const Tensor& in) {
  check_all_gather(*this, out, in);
  cpu_queue(*this, queue);
  const std::int64_t bytes = in.bytes();
  if (bytes == 0) return done("all_gather");
  std::byte* own = out.raw() + rank() * bytes;
  if (own != in.raw()) std::memmove(own, in.raw(), static_cast<std::size_t>(bytes));
  if (size() == 1) return done("all_gather");
  if (bytes <= kSmallBytes) {
    check_mpi(MPI_Allgather(MPI_IN_PLACE, 0, MPI_BYTE, out.raw(), static_cast<int>(bytes), MPI_BYTE,
                            group_.communicator()),
              call_text(*this, "all_gather", "MPI_Allgather"));
    return done("all_gather");
  }
  std::vector<ConstBytes> to(index(size()), ConstBytes(own, static_cast<std::size_t>(bytes)));
  std::vector<Bytes> from;
  for (int r = 0; r < size(); ++r) from.emplace_back(out.raw() + r * bytes, static_cast<std::size_t>(bytes));
  swap_blocks(to, from, "all_gather");
  return done("all_gather");
}

Pending MpiCommunicator::reduce_scatter(Queue& queue, const Tensor& out, const Tensor& in) {
  check_reduce_scatter(*this, out, in);
  CpuQueue& cpu = cpu_queue(*this, queue);
  const std::int64_t element = bits(in.dtype()) / 8, count = out.count();
  const std::int64_t round = std::min(count, std::max<std::int64_t>(1, kStagingBytes / element / size()));
  const Bytes incoming = staging(round * element * size());
  std::vector<const std::byte*> blocks(index(size()));
  std::vector<ConstBytes> to(index(size()));
  std::vector<Bytes> from(index(size()));
  for (std::int64_t begin = 0; begin < count; begin += round) {
    const std::int64_t length = std::min(round, count - begin);
    const auto bytes = static_cast<std::size_t>(length * element);
    for (int r = 0; r < size(); ++r) {
      const std::byte* source = in.raw() + (r * count + begin) * element;
      to[index(r)] = {source, bytes};
      from[index(r)] = incoming.subspan(static_cast<std::size_t>(r * round * element), bytes);
      blocks[index(r)] = r == rank() ? source : from[index(r)].data();
    }
    swap_blocks(to, from, "reduce_scatter");
    reduce_blocks(cpu, in.dtype(), out.raw() + begin * element, blocks, length, Reduce::sum);
  }
  return done("reduce_scatter");
}

Pending MpiCommunicator::broadcast(Queue& queue, const Tensor& tensor, int root) {
  check_broadcast(*this, tensor, root);
  cpu_queue(*this, queue);
  if (size() > 1) group_.broadcast(Bytes(tensor.raw(), static_cast<std::size_t>(tensor.bytes())), root);
  return done("broadcast");
}

Pending MpiCommunicator::exchange(Queue& queue, std::span<const Message> sends,
                                  std::span<const Message> receives) {
  check_exchange(*this, sends, receives);
  cpu_queue(*this, queue);
  return Pending(post_messages(*this, group_.communicator(), sends, receives), "exchange");
}

}  // namespace verne
