// Hangs in the way that its argument names, on three ranks, of which rank 1 does not come; started under
// mpirun by watchdog_test.
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>

#include "verne/base/error.hpp"
#include "verne/comm/agree.hpp"
#include "verne/comm/failure.hpp"
#include "verne/comm/make_communicator.hpp"
#include "verne/comm/mpi_session.hpp"
#include "verne/tensor/cpu_queue.hpp"

namespace verne {
namespace {

constexpr double kLimitSeconds = 2;

void sleep_long() {
  std::this_thread::sleep_for(std::chrono::seconds(60));
}

class Hang {
 public:
  explicit Hang(const MpiSession& session) : session_(session), rank_(session.rank()) {
    queue_.zero(buffer_.tensor());
  }

  void in_collective() {
    data_->all_reduce(queue_, buffer_.tensor(), Reduce::sum).wait(queue_);
    if (rank_ == 1) sleep_long();
    data_->broadcast(queue_, buffer_.tensor(), 1).wait(queue_);
  }

  /// Exchange 1 goes around; of exchange 2, rank 0 waits for what rank 1 does not send.
  void in_exchange() {
    const Communicator::Message next{buffer_.tensor(), (rank_ + 1) % 3},
        previous{other_.tensor(), (rank_ + 2) % 3};
    data_->exchange(queue_, std::span(&next, 1), std::span(&previous, 1)).wait(queue_);
    if (rank_ != 0) sleep_long();
    const Communicator::Message to_last{buffer_.tensor(), 2}, from_first{other_.tensor(), 1};
    data_->exchange(queue_, std::span(&to_last, 1), std::span(&from_first, 1)).wait(queue_);
  }

  /// Exchange 1 is never answered, while later ones on both queues go on.
  void beside_exchanges() {
    CpuQueue second_queue;
    if (rank_ == 1) sleep_long();
    const int peer = 2 - rank_;
    const Communicator::Message lost{buffer_.tensor(), 1}, send{buffer_.tensor(), peer},
        receive{other_.tensor(), peer};
    Pending pending;
    if (rank_ == 0) pending = data_->exchange(queue_, {}, std::span(&lost, 1));
    for (int i = 0; i < 1000; ++i) {
      for (Queue* queue : {static_cast<Queue*>(&queue_), static_cast<Queue*>(&second_queue)})
        data_->exchange(*queue, std::span(&send, 1), std::span(&receive, 1)).wait(*queue);
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    pending.wait(queue_);
  }

  void on_the_second_queue() {
    CpuQueue second_queue;
    for (int i = 0; i < 3; ++i) data_->all_reduce(queue_, buffer_.tensor(), Reduce::sum).wait(queue_);
    if (rank_ == 1) sleep_long();
    data_->broadcast(second_queue, buffer_.tensor(), 1).wait(second_queue);
  }

  void in_barrier() {
    const HostGroup group = session_.world().split(0, rank_);
    if (group.sum(std::int64_t{rank_}) != 3) throw InternalError("three ranks");
    if (rank_ == 1) sleep_long();
    group.barrier();
  }

  void in_agreement() {
    if (rank_ == 1) sleep_long();
    agree_after(session_.world(), [] {});
  }

  /// Rank 1 waits for a broadcast, the others for an agreement.
  void in_different_calls() {
    if (rank_ == 1) {
      session_.world().broadcast_text("", 0);
    } else {
      session_.world().barrier();
    }
  }

  /// As the making of NCCL's communicators does.
  void in_another_librarys_collective() {
    if (rank_ == 1) sleep_long();
    session_.world().collective("ncclCommInitRankConfig", [&] { quiet_.barrier(); });
  }

 private:
  const MpiSession& session_;
  const int rank_;
  const HostGroup quiet_{session_.world().communicator()};
  Watchdog watchdog_{session_, kLimitSeconds};
  CpuQueue queue_;
  const std::unique_ptr<Communicator> data_ = make_communicator("data", session_.world(), queue_, &watchdog_);
  const Buffer buffer_{queue_, DType::f32, {4}, MemoryKind::scratch};
  const Buffer other_{queue_, DType::f32, {4}, MemoryKind::scratch};
};

/// A communicator whose network fails on rank 1.
class FaultyCommunicator final : public Communicator {
 public:
  FaultyCommunicator() : Communicator("data", 0, 1) {}
  Pending all_reduce(Queue&, const Tensor&, Reduce) override { return {}; }
  Pending all_gather(Queue&, const Tensor&, const Tensor&) override { return {}; }
  Pending reduce_scatter(Queue&, const Tensor&, const Tensor&) override { return {}; }
  Pending broadcast(Queue&, const Tensor&, int) override { return {}; }
  Pending exchange(Queue&, std::span<const Communicator::Message>,
                   std::span<const Communicator::Message>) override {
    return {};
  }
  std::string fault() const override { return "the network is down"; }
};

void fault(const MpiSession& session) {
  Watchdog watchdog(session, 600);
  if (session.rank() != 1) return session.world().barrier();
  const auto data =
      watchdog.watch(std::make_unique<FaultyCommunicator>(), HostGroup(), ExchangeEnd::in_queue_order);
  sleep_long();
}

ExitCode hang(const MpiSession& session, const std::string& how) {
  if (how == "fault") {
    fault(session);
    return ExitCode::done;
  }
  Hang hang(session);
  if (how == "collective") hang.in_collective();
  if (how == "exchange") hang.in_exchange();
  if (how == "beside-exchanges") hang.beside_exchanges();
  if (how == "second-queue") hang.on_the_second_queue();
  if (how == "barrier") hang.in_barrier();
  if (how == "agreement") hang.in_agreement();
  if (how == "different-calls") hang.in_different_calls();
  if (how == "another-library") hang.in_another_librarys_collective();
  return ExitCode::done;
}

}  // namespace
}  // namespace verne

int main(int argc, char** argv) {
  const verne::MpiSession session;
  return static_cast<int>(
      verne::run_guarded(session, [&] { return verne::hang(session, argc > 1 ? argv[1] : ""); }));
}
