#include "verne/comm/host_messages.hpp"

#include <chrono>
#include <limits>
#include <thread>

#include "mpi_check.hpp"
#include "verne/base/error.hpp"

namespace verne {
namespace {

constexpr int kTag = 2;
constexpr std::int64_t kSend = -1;
constexpr int kTriesAwake = 50;
constexpr std::chrono::microseconds kNap{50};

int count_of(std::size_t bytes) {
  require(bytes <= static_cast<std::size_t>(std::numeric_limits<int>::max()), "a message of {} bytes", bytes);
  return static_cast<int>(bytes);
}

}  // namespace

/// Entry i of each list belongs to one message; finished ones are taken out.
struct HostMessages::State {
  const HostGroup& group;
  std::vector<MPI_Request> requests;
  std::vector<std::int64_t> numbers, expected;  ///< bytes, or kSend
  std::int64_t next = 0;
  std::vector<int> indices;  ///< memory of one call
  std::vector<MPI_Status> statuses;

  MPI_Request* add(int peer, std::int64_t bytes) {
    require(peer >= 0 && peer < group.size() && peer != group.rank(), "a message between rank {} and rank {}",
            group.rank(), peer);
    numbers.push_back(next++);
    expected.push_back(bytes);
    return &requests.emplace_back(MPI_REQUEST_NULL);
  }

  std::vector<std::int64_t> take(int count) {
    std::vector<std::int64_t> done;
    std::string wrong;
    for (int i = 0; i < count; ++i) {
      const auto at = static_cast<std::size_t>(indices[static_cast<std::size_t>(i)]);
      done.push_back(numbers[at]);
      if (expected[at] == kSend) continue;
      const MPI_Status& status = statuses[static_cast<std::size_t>(i)];
      int bytes = 0;
      check_mpi(MPI_Get_count(&status, MPI_BYTE, &bytes), "MPI_Get_count");
      if (bytes != expected[at])
        wrong = fmt::format("rank {} sent a message of {} bytes, {} were expected", status.MPI_SOURCE, bytes,
                            expected[at]);
    }
    std::size_t kept = 0;
    for (std::size_t i = 0; i < requests.size(); ++i) {
      if (requests[i] == MPI_REQUEST_NULL) continue;
      requests[kept] = requests[i];
      numbers[kept] = numbers[i];
      expected[kept] = expected[i];
      ++kept;
    }
    requests.resize(kept);
    numbers.resize(kept);
    expected.resize(kept);
    if (!wrong.empty()) throw InternalError(wrong);
    return done;
  }

  std::vector<std::int64_t> test() {
    if (requests.empty()) return {};
    indices.resize(requests.size());
    statuses.resize(requests.size());
    int count = 0;
    check_mpi(MPI_Testsome(static_cast<int>(requests.size()), requests.data(), &count, indices.data(),
                           statuses.data()),
              "MPI_Testsome");
    return take(count);
  }
};

HostMessages::HostMessages(const HostGroup& group) : state_(new State{group, {}, {}, {}, 0, {}, {}}) {}

HostMessages::~HostMessages() {
  for (MPI_Request& request : state_->requests) {
    if (request == MPI_REQUEST_NULL) continue;
    MPI_Cancel(&request);
    MPI_Request_free(&request);
  }
}

std::int64_t HostMessages::send(int to, std::span<const std::byte> data) {
  MPI_Request* request = state_->add(to, kSend);
  check_mpi(MPI_Isend(data.data(), count_of(data.size()), MPI_BYTE, to, kTag, state_->group.communicator(),
                      request),
            "MPI_Isend");
  return state_->numbers.back();
}

std::int64_t HostMessages::receive(int from, std::span<std::byte> data) {
  MPI_Request* request = state_->add(from, std::ssize(data));
  check_mpi(MPI_Irecv(data.data(), count_of(data.size()), MPI_BYTE, from, kTag, state_->group.communicator(),
                      request),
            "MPI_Irecv");
  return state_->numbers.back();
}

std::vector<std::int64_t> HostMessages::finished() {
  return state_->test();
}

std::vector<std::int64_t> HostMessages::wait() {
  // Waiting in MPI keeps a processor busy that other ranks of a node may need.
  for (int tries = 0; under_way() > 0; ++tries) {
    if (std::vector<std::int64_t> done = state_->test(); !done.empty()) return done;
    if (tries >= kTriesAwake) std::this_thread::sleep_for(kNap);
  }
  return {};
}

std::int64_t HostMessages::under_way() const {
  return std::ssize(state_->requests);
}

}  // namespace verne
