#include "verne/comm/host_group.hpp"

#include <algorithm>
#include <exception>
#include <utility>

#include "mpi_check.hpp"
#include "verne/base/error.hpp"

namespace verne {
namespace {

/// Calls body(offset, count) for consecutive pieces of at most `piece` elements.
template <class Body>
void for_each_piece(std::int64_t count, std::int64_t piece, Body&& body) {
  for (std::int64_t begin = 0; begin < count; begin += piece) body(begin, std::min(piece, count - begin));
}

std::int64_t all_reduce_one(ompi_communicator_t* communicator, std::int64_t value, MPI_Op operation) {
  if (communicator) {
    check_mpi(MPI_Allreduce(MPI_IN_PLACE, &value, 1, MPI_INT64_T, operation, communicator), "MPI_Allreduce");
  }
  return value;
}

/// What travels between two ranks under one tag: consecutive pieces, matched in order.
constexpr int kAllToAllTag = 1;

}  // namespace

HostGroup::HostGroup() = default;

HostGroup::HostGroup(ompi_communicator_t* communicator) {
  require(communicator != nullptr, "a host group of no communicator");
  check_mpi(MPI_Comm_dup(communicator, &communicator_), "MPI_Comm_dup");
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
      size_(std::exchange(other.size_, 1)) {}

HostGroup& HostGroup::operator=(HostGroup&& other) noexcept {
  std::swap(communicator_, other.communicator_);
  std::swap(rank_, other.rank_);
  std::swap(size_, other.size_);
  return *this;
}

void HostGroup::barrier() const {
  if (communicator_) check_mpi(MPI_Barrier(communicator_), "MPI_Barrier");
}

HostGroup HostGroup::split(int color, int key) const {
  require(color >= 0, "a group's colour {} is negative", color);
  HostGroup group;
  if (!communicator_) return group;
  check_mpi(MPI_Comm_split(communicator_, color, key, &group.communicator_), "MPI_Comm_split");
  check_mpi(MPI_Comm_set_errhandler(group.communicator_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  check_mpi(MPI_Comm_rank(group.communicator_, &group.rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(group.communicator_, &group.size_), "MPI_Comm_size");
  return group;
}

void HostGroup::broadcast(std::span<std::byte> data, int root) const {
  require(root >= 0 && root < size_, "broadcast from rank {} of {}", root, size_);
  if (size_ == 1) return;
  for_each_piece(std::ssize(data), kMpiPieceBytes, [&](std::int64_t begin, std::int64_t count) {
    check_mpi(MPI_Bcast(data.data() + begin, static_cast<int>(count), MPI_BYTE, root, communicator_),
              "MPI_Bcast");
  });
}

std::string HostGroup::broadcast_text(std::string text, int root) const {
  std::int64_t size = std::ssize(text);
  broadcast(std::as_writable_bytes(std::span(&size, 1)), root);
  text.resize(static_cast<std::size_t>(size));
  broadcast(std::as_writable_bytes(std::span(text)), root);
  return text;
}

std::vector<std::int64_t> HostGroup::all_gather(std::int64_t value) const {
  std::vector<std::int64_t> values(static_cast<std::size_t>(size_), value);
  if (size_ > 1) {
    check_mpi(MPI_Allgather(&value, 1, MPI_INT64_T, values.data(), 1, MPI_INT64_T, communicator_),
              "MPI_Allgather");
  }
  return values;
}

std::vector<std::string> HostGroup::all_gather_text(const std::string& text) const {
  if (size_ == 1) return {text};
  const std::vector<std::int64_t> sizes = all_gather(std::ssize(text));
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
    broadcast(std::as_writable_bytes(std::span(one)), r);
  }
  return texts;
}

std::int64_t HostGroup::sum(std::int64_t value) const {
  return all_reduce_one(communicator_, value, MPI_SUM);
}
std::int64_t HostGroup::min(std::int64_t value) const {
  return all_reduce_one(communicator_, value, MPI_MIN);
}
std::int64_t HostGroup::max(std::int64_t value) const {
  return all_reduce_one(communicator_, value, MPI_MAX);
}

double HostGroup::sum(double value) const {
  sum(std::span(&value, 1));
  return value;
}

double HostGroup::max(double value) const {
  if (communicator_) {
    check_mpi(MPI_Allreduce(MPI_IN_PLACE, &value, 1, MPI_DOUBLE, MPI_MAX, communicator_), "MPI_Allreduce");
  }
  return value;
}

// Gathered and added in rank order, so that the bits do not depend on the library's choice of algorithm.
void HostGroup::sum(std::span<double> values) const {
  if (size_ == 1) return;
  const std::int64_t piece = std::max<std::int64_t>(1, (std::int64_t{1} << 20) / size_);
  std::vector<double> gathered(static_cast<std::size_t>(std::min(piece, std::ssize(values)) * size_));
  for_each_piece(std::ssize(values), piece, [&](std::int64_t begin, std::int64_t count) {
    const int n = static_cast<int>(count);
    check_mpi(
        MPI_Allgather(values.data() + begin, n, MPI_DOUBLE, gathered.data(), n, MPI_DOUBLE, communicator_),
        "MPI_Allgather");
    for (std::int64_t i = 0; i < count; ++i) {
      double total = 0;
      for (std::int64_t r = 0; r < size_; ++r) total += gathered[static_cast<std::size_t>(r * count + i)];
      values[static_cast<std::size_t>(begin + i)] = total;
    }
  });
}

void HostGroup::sum(std::span<std::int64_t> values) const {
  if (size_ == 1) return;
  for_each_piece(std::ssize(values), kMpiPieceBytes / 8, [&](std::int64_t begin, std::int64_t count) {
    check_mpi(MPI_Allreduce(MPI_IN_PLACE, values.data() + begin, static_cast<int>(count), MPI_INT64_T,
                            MPI_SUM, communicator_),
              "MPI_Allreduce");
  });
}

std::vector<std::vector<std::byte>> HostGroup::all_to_all(
    const std::vector<std::vector<std::byte>>& to) const {
  require(std::ssize(to) == size_, "all_to_all of {} blocks among {} ranks", to.size(), size_);
  if (size_ == 1) return to;
  std::vector<std::int64_t> sending, receiving(to.size());
  for (const auto& block : to) sending.push_back(std::ssize(block));
  check_mpi(MPI_Alltoall(sending.data(), 1, MPI_INT64_T, receiving.data(), 1, MPI_INT64_T, communicator_),
            "MPI_Alltoall");
  std::vector<std::vector<std::byte>> from(to.size());
  const auto self = static_cast<std::size_t>(rank_);
  from[self] = to[self];
  for (int shift = 1; shift < size_; ++shift) {
    const int target = (rank_ + shift) % size_, source = (rank_ - shift + size_) % size_;
    const auto& out = to[static_cast<std::size_t>(target)];
    auto& in = from[static_cast<std::size_t>(source)];
    in.resize(static_cast<std::size_t>(receiving[static_cast<std::size_t>(source)]));
    std::vector<MPI_Request> requests;
    for_each_piece(std::ssize(in), kMpiPieceBytes, [&](std::int64_t begin, std::int64_t count) {
      check_mpi(MPI_Irecv(in.data() + begin, static_cast<int>(count), MPI_BYTE, source, kAllToAllTag,
                          communicator_, &requests.emplace_back()),
                "MPI_Irecv");
    });
    for_each_piece(std::ssize(out), kMpiPieceBytes, [&](std::int64_t begin, std::int64_t count) {
      check_mpi(MPI_Isend(out.data() + begin, static_cast<int>(count), MPI_BYTE, target, kAllToAllTag,
                          communicator_, &requests.emplace_back()),
                "MPI_Isend");
    });
    check_mpi(MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE),
              "MPI_Waitall");
  }
  return from;
}

}  // namespace verne
