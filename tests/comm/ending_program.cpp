// Ends in the way that its argument names; started under mpirun by failure_test and mpi_session_test.
#include <chrono>
#include <cstdio>
#include <optional>
#include <string>
#include <thread>

#include "verne/base/error.hpp"
#include "verne/comm/failure.hpp"
#include "verne/comm/make_communicator.hpp"
#include "verne/comm/mpi_session.hpp"
#include "verne/tensor/cpu_queue.hpp"

namespace verne {
namespace {

/// A message for the next rank that nobody waits for.
Pending post_nowhere(const MpiSession& session, Communicator& data, Queue& queue, const Buffer& buffer) {
  const Communicator::Message message{buffer.tensor(), (session.rank() + 1) % session.size()};
  return data.exchange(queue, {}, std::span(&message, 1));
}

/// Where each rank runs: "where 2" on a node of two GPUs, "where each" with a GPU of its own shown to each.
void print_where(const MpiSession& session, const std::string& gpus) {
  std::optional<GpuPlace> gpu;
  if (gpus == "each") {
    gpu = GpuPlace{.index = 0, .address = fmt::format("0000:0{}:00.0", session.rank())};
  } else if (gpus != "none") {
    const int index = session.gpu_index(std::stoi(gpus));
    gpu = GpuPlace{.index = index, .address = fmt::format("0000:0{}:00.0", index)};
  }
  const std::string text = session.report_line(gpu);
  const bool shared = session.shares_gpus(gpu);
  if (session.rank() == session.size() - 1) fmt::print("{}\n{}\n", text, shared ? "shared" : "not shared");
}

ExitCode end(const MpiSession& session, const std::string& how, const std::string& more) {
  const bool last = session.rank() == session.size() - 1;
  if (how == "done") return ExitCode::done;
  if (how == "requeue") return ExitCode::requeue;
  if (how == "error-everywhere") throw UserError("deck.ini line 3: unknown key 'lrr'");
  if (how == "error-late") {
    std::this_thread::sleep_for(std::chrono::milliseconds(300 * session.rank()));
    throw UserError("deck.ini line 3: unknown key 'lrr'");
  }
  if (how == "errors-differ") {
    if (session.rank() == 0) throw UserError("one");
    throw SystemError("another");
  }
  if (how == "error-on-one") {
    if (last) throw UserError("shard 7 cannot be read");
    session.world().barrier();
    return ExitCode::done;
  }
  if (how == "error-beside-done") {
    if (last) throw SystemError("late trouble");
    return ExitCode::done;
  }
  if (how == "drop-exchange" || how == "error-beside-exchange") {
    CpuQueue queue;
    const auto data = make_communicator("data", session.world(), queue);
    const Buffer buffer(queue, DType::f32, {4}, MemoryKind::scratch);
    if (last) {
      const Pending pending = post_nowhere(session, *data, queue, buffer);
      if (how == "error-beside-exchange") throw UserError("shard 7 cannot be read");
    }
    session.world().barrier();
    return ExitCode::done;
  }
  if (how == "where") {
    print_where(session, more);
    return ExitCode::done;
  }
  throw InternalError("no such end: " + how);
}

}  // namespace
}  // namespace verne

int main(int argc, char** argv) {
  try {
    const verne::MpiSession session;
    return static_cast<int>(verne::run_guarded(
        session, [&] { return verne::end(session, argc > 1 ? argv[1] : "", argc > 2 ? argv[2] : ""); }));
  } catch (const verne::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return static_cast<int>(error.exit_code());
  }
}
