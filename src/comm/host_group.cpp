#include "verne/comm/host_group.hpp"

#include <algorithm>
#include <bit>
#include <exception>
#include <utility>

#include "host_calls.hpp"
#include "mpi_check.hpp"
#include "verne/base/error.hpp"
#include "verne/base/hash.hpp"

namespace verne {
namespace {

/// What travels between two ranks under one tag: consecutive pieces, matched in order.
constexpr int kAllToAllTag = 1;

void broadcast_bytes(const HostGroup& group, std::span<std::byte> data, int root) {
  for_each_piece(std::ssize(data), [&](std::int64_t begin, int bytes) {
    check_mpi(MPI_Bcast(data.data() + begin, bytes, MPI_BYTE, root, group.communicator()), "MPI_Bcast");
  });
}

/// Sends and receives one rank's blocks in pieces.
void swap_with(ompi_communicator_t* communicator, std::span<const std::byte> out, int target,
               std::span<std::byte> in, int source) {
  std::vector<MPI_Request> requests;
  for_each_piece(std::ssize(in), [&](std::int64_t begin, int bytes) {
    check_mpi(MPI_Irecv(in.data() + begin, bytes, MPI_BYTE, source, kAllToAllTag, communicator,
                        &requests.emplace_back()),
              "MPI_Irecv");
  });
  for_each_piece(std::ssize(out), [&](std::int64_t begin, int bytes) {
    check_mpi(MPI_Isend(out.data() + begin, bytes, MPI_BYTE, target, kAllToAllTag, communicator,
                        &requests.emplace_back()),
              "MPI_Isend");
  });
  check_mpi(MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE),
            "MPI_Waitall");
}

}  // namespace

HostGroup::HostGroup() = default;

HostGroup::HostGroup(ompi_communicator_t* communicator) {
  require(communicator != nullptr, "a host group of no communicator");
  check_mpi(MPI_Comm_dup(communicator, &communicator_), "MPI_Comm_dup");
  *this = HostGroup(std::exchange(communicator_, nullptr),
                    std::make_unique<HostCalls>(std::make_shared<WatchPost>(), xxh3("host calls of a root")));
}

HostGroup::HostGroup(ompi_communicator_t* owned, std::unique_ptr<HostCalls> calls)
    : communicator_(owned), calls_(std::move(calls)) {
  check_mpi(MPI_Comm_set_errhandler(communicator_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  check_mpi(MPI_Comm_rank(communicator_, &rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(communicator_, &size_), "MPI_Comm_size");
}

HostGroup::~HostGroup() {
  // Freeing is collective: while an exception unwinds one rank alone, the others may never come.
  if (!communicator_ || std::uncaught_exceptions() > 0) return;
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (!finalized) MPI_Comm_free(&communicator_);
}

HostGroup::HostGroup(HostGroup&& other) noexcept
    : communicator_(std::exchange(other.communicator_, nullptr)),
      rank_(std::exchange(other.rank_, 0)),
      size_(std::exchange(other.size_, 1)),
      calls_(std::move(other.calls_)) {}

HostGroup& HostGroup::operator=(HostGroup&& other) noexcept {
  std::swap(communicator_, other.communicator_);
  std::swap(rank_, other.rank_);
  std::swap(size_, other.size_);
  std::swap(calls_, other.calls_);
  return *this;
}

std::vector<std::int64_t> HostGroup::world_ranks() const {
  if (!communicator_) return {0};
  MPI_Group own = MPI_GROUP_NULL, world = MPI_GROUP_NULL;
  check_mpi(MPI_Comm_group(communicator_, &own), "MPI_Comm_group");
  check_mpi(MPI_Comm_group(MPI_COMM_WORLD, &world), "MPI_Comm_group");
  std::vector<int> ranks(static_cast<std::size_t>(size_)), translated(ranks.size());
  for (int r = 0; r < size_; ++r) ranks[static_cast<std::size_t>(r)] = r;
  check_mpi(MPI_Group_translate_ranks(own, size_, ranks.data(), world, translated.data()),
            "MPI_Group_translate_ranks");
  MPI_Group_free(&own);
  MPI_Group_free(&world);
  return {translated.begin(), translated.end()};
}

void HostGroup::barrier(Caller caller) const {
  if (size_ > 1) HostCall(*this, "barrier", caller).combine(Combine::none, 0);
}

HostGroup HostGroup::split(int color, int key, Caller caller) const {
  require(color >= 0, "a group's colour {} is negative", color);
  if (!communicator_) return {};
  ompi_communicator_t* made = nullptr;
  collective(
      "split", [&] { check_mpi(MPI_Comm_split(communicator_, color, key, &made), "MPI_Comm_split"); },
      caller);
  return HostGroup(made, calls_->child(color));
}

HostGroup HostGroup::split_by_node(Caller caller) const {
  if (!communicator_) return {};
  ompi_communicator_t* made = nullptr;
  collective(
      "split_by_node",
      [&] {
        check_mpi(MPI_Comm_split_type(communicator_, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &made),
                  "MPI_Comm_split_type");
      },
      caller);
  return HostGroup(made, calls_->child(0));
}

void HostGroup::broadcast(std::span<std::byte> data, int root, Caller caller) const {
  require(root >= 0 && root < size_, "broadcast from rank {} of {}", root, size_);
  if (size_ == 1) return;
  const HostCall call(*this, "broadcast", caller);
  broadcast_bytes(*this, data, root);
}

std::string HostGroup::broadcast_text(std::string text, int root, Caller caller) const {
  require(root >= 0 && root < size_, "broadcast from rank {} of {}", root, size_);
  if (size_ == 1) return text;
  const HostCall call(*this, "broadcast_text", caller);
  std::int64_t size = std::ssize(text);
  broadcast_bytes(*this, std::as_writable_bytes(std::span(&size, 1)), root);
  text.resize(static_cast<std::size_t>(size));
  broadcast_bytes(*this, std::as_writable_bytes(std::span(text)), root);
  return text;
}

std::vector<std::int64_t> HostGroup::all_gather(std::int64_t value, Caller caller) const {
  if (size_ == 1) return {value};
  return HostCall(*this, "all_gather", caller).gather(value);
}

std::vector<std::string> HostGroup::all_gather_text(const std::string& text, Caller caller) const {
  if (size_ == 1) return {text};
  const HostCall call(*this, "all_gather_text", caller);
  const std::vector<std::int64_t> sizes = call.gather(std::ssize(text));
  std::int64_t total = 0;
  for (const std::int64_t size : sizes) total += size;
  std::vector<std::string> texts(sizes.size());
  if (total < kMpiPieceBytes) {
    std::vector<int> counts, offsets;
    int offset = 0;
    for (const std::int64_t size : sizes) {
      counts.push_back(static_cast<int>(size));
      offsets.push_back(offset);
      offset += static_cast<int>(size);
    }
    std::string all(static_cast<std::size_t>(total), '\0');
    check_mpi(MPI_Allgatherv(text.data(), static_cast<int>(text.size()), MPI_CHAR, all.data(), counts.data(),
                             offsets.data(), MPI_CHAR, communicator_),
              "MPI_Allgatherv");
    for (std::size_t r = 0; r < texts.size(); ++r) {
      texts[r] = all.substr(static_cast<std::size_t>(offsets[r]), static_cast<std::size_t>(counts[r]));
    }
    return texts;
  }
  for (int r = 0; r < size_; ++r) {
    std::string& one = texts[static_cast<std::size_t>(r)];
    if (r == rank_) {
      one = text;
    } else {
      one.resize(static_cast<std::size_t>(sizes[static_cast<std::size_t>(r)]));
    }
    broadcast_bytes(*this, std::as_writable_bytes(std::span(one)), r);
  }
  return texts;
}

std::int64_t HostGroup::sum(std::int64_t value, Caller caller) const {
  return size_ == 1 ? value : HostCall(*this, "sum", caller).combine(Combine::sum, value);
}
std::int64_t HostGroup::min(std::int64_t value, Caller caller) const {
  return size_ == 1 ? value : HostCall(*this, "min", caller).combine(Combine::min, value);
}
std::int64_t HostGroup::max(std::int64_t value, Caller caller) const {
  return size_ == 1 ? value : HostCall(*this, "max", caller).combine(Combine::max, value);
}

// Gathered and added in rank order, so that the bits do not depend on the library's choice of algorithm.
double HostGroup::sum(double value, Caller caller) const {
  if (size_ == 1) return value;
  double total = 0;
  for (const std::int64_t bits :
       HostCall(*this, "sum of doubles", caller).gather(std::bit_cast<std::int64_t>(value)))
    total += std::bit_cast<double>(bits);
  return total;
}

double HostGroup::max(double value, Caller caller) const {
  if (size_ == 1) return value;
  const HostCall call(*this, "max of doubles", caller);
  return std::bit_cast<double>(call.combine(Combine::max_of_doubles, std::bit_cast<std::int64_t>(value)));
}

void HostGroup::sum(std::span<double> values, Caller caller) const {
  if (size_ == 1) return;
  const HostCall call(*this, "sum of arrays", caller);
  const std::int64_t piece = std::max<std::int64_t>(1, (std::int64_t{1} << 20) / size_);
  std::vector<double> gathered(static_cast<std::size_t>(std::min(piece, std::ssize(values)) * size_));
  for (std::int64_t begin = 0; begin < std::ssize(values); begin += piece) {
    const std::int64_t count = std::min(piece, std::ssize(values) - begin);
    const int n = static_cast<int>(count);
    check_mpi(
        MPI_Allgather(values.data() + begin, n, MPI_DOUBLE, gathered.data(), n, MPI_DOUBLE, communicator_),
        "MPI_Allgather");
    for (std::int64_t i = 0; i < count; ++i) {
      double total = 0;
      for (std::int64_t r = 0; r < size_; ++r) total += gathered[static_cast<std::size_t>(r * count + i)];
      values[static_cast<std::size_t>(begin + i)] = total;
    }
  }
}

void HostGroup::sum(std::span<std::int64_t> values, Caller caller) const {
  if (size_ == 1) return;
  const HostCall call(*this, "sum of arrays", caller);
  for_each_piece(8 * std::ssize(values), [&](std::int64_t begin, int bytes) {
    check_mpi(MPI_Allreduce(MPI_IN_PLACE, values.data() + begin / 8, bytes / 8, MPI_INT64_T, MPI_SUM,
                            communicator_),
              "MPI_Allreduce");
  });
}

std::vector<std::vector<std::byte>> HostGroup::all_to_all(const std::vector<std::vector<std::byte>>& to,
                                                          Caller caller) const {
  require(std::ssize(to) == size_, "all_to_all of {} blocks among {} ranks", to.size(), size_);
  if (size_ == 1) return to;
  const HostCall call(*this, "all_to_all", caller);
  std::vector<std::int64_t> sizes;
  for (const auto& block : to) sizes.push_back(std::ssize(block));
  const std::vector<std::int64_t> arriving = call.swap(sizes);
  std::vector<std::vector<std::byte>> from(to.size());
  const auto self = static_cast<std::size_t>(rank_);
  from[self] = to[self];
  for (int shift = 1; shift < size_; ++shift) {
    const int target = (rank_ + shift) % size_, source = (rank_ - shift + size_) % size_;
    auto& in = from[static_cast<std::size_t>(source)];
    in.resize(static_cast<std::size_t>(arriving[static_cast<std::size_t>(source)]));
    swap_with(communicator_, to[static_cast<std::size_t>(target)], target, in, source);
  }
  return from;
}

void HostGroup::collective(const char* name, const std::function<void()>& work, Caller caller) const {
  if (size_ == 1) return work();
  const HostCall call(*this, name, caller);
  work();
}

}  // namespace verne
