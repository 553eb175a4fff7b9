#include "mpi_messages.hpp"

#include <string>
#include <vector>

#include "mpi_check.hpp"
#include "verne/base/error.hpp"

namespace verne {
namespace {

constexpr int kMessageTag = 1;

/// The posted pieces of one exchange: receives first.
class PostedMessages final : public Event::State {
 public:
  explicit PostedMessages(const Communicator& communicator)
      : place_(fmt::format("exchange on communicator {}", communicator.name())) {}
  ~PostedMessages() override {
    if (completed_ < requests_.size()) abandon();
  }

  void receive(ompi_communicator_t* mpi, const Communicator::Message& message) {
    for_each_piece(message.tensor.bytes(), [&](std::int64_t begin, int bytes) {
      expected_.push_back({message.peer, bytes});
      check_mpi(MPI_Irecv(message.tensor.raw() + begin, bytes, MPI_BYTE, message.peer, kMessageTag, mpi,
                          &requests_.emplace_back(MPI_REQUEST_NULL)),
                place_ + ": MPI_Irecv");
    });
  }
  void send(ompi_communicator_t* mpi, const Communicator::Message& message) {
    for_each_piece(message.tensor.bytes(), [&](std::int64_t begin, int bytes) {
      check_mpi(MPI_Isend(message.tensor.raw() + begin, bytes, MPI_BYTE, message.peer, kMessageTag, mpi,
                          &requests_.emplace_back(MPI_REQUEST_NULL)),
                place_ + ": MPI_Isend");
    });
  }

  void hold(Queue&) override { wait_on_host(); }
  // One by one: Open MPI 4.1's MPI_Waitall does not always return where a message is too long.
  void wait_on_host() override {
    for (; completed_ < requests_.size(); ++completed_) {
      MPI_Status status{};
      check(MPI_Wait(&requests_[completed_], &status), status);
    }
  }
  bool passed() override {
    for (; completed_ < requests_.size(); ++completed_) {
      MPI_Status status{};
      int done = 0;
      const int code = MPI_Test(&requests_[completed_], &done, &status);
      if (code == MPI_SUCCESS && !done) return false;
      check(code, status);
    }
    return true;
  }

 private:
  struct Piece {
    int peer, bytes;
  };

  /// Of request `completed_`.
  void check(int code, const MPI_Status& status) const {
    require(code != MPI_ERR_TRUNCATE, "{}: a message is longer than the tensor that receives it", place_);
    check_mpi(code, place_);
    if (completed_ >= expected_.size()) return;
    const Piece& expected = expected_[completed_];
    int arrived = 0;
    check_mpi(MPI_Get_count(&status, MPI_BYTE, &arrived), "MPI_Get_count");
    require(arrived == expected.bytes, "{}: {} bytes came from rank {}, expected {}", place_, arrived,
            expected.peer, expected.bytes);
  }

  /// An error ends this rank: what has not arrived must not be written into memory that is given away.
  void abandon() {
    int finalized = 0;
    MPI_Finalized(&finalized);
    if (finalized) return;
    for (std::size_t i = completed_; i < requests_.size(); ++i) {
      if (requests_[i] == MPI_REQUEST_NULL) continue;
      if (i < expected_.size()) MPI_Cancel(&requests_[i]);
      MPI_Request_free(&requests_[i]);
    }
  }

  std::string place_;
  std::vector<MPI_Request> requests_;
  std::vector<Piece> expected_;  ///< by the first requests
  std::size_t completed_ = 0;    ///< so many requests are over
};

}  // namespace

Event post_messages(const Communicator& communicator, ompi_communicator_t* mpi,
                    std::span<const Communicator::Message> sends,
                    std::span<const Communicator::Message> receives) {
  auto posted = std::make_unique<PostedMessages>(communicator);
  for (const Communicator::Message& message : receives) posted->receive(mpi, message);
  for (const Communicator::Message& message : sends) posted->send(mpi, message);
  return Event(std::move(posted));
}

}  // namespace verne
