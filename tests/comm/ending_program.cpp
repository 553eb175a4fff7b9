// Ends in the way that its argument names; started under mpirun by failure_test, watchdog_test and
// mpi_session_test.
#include <chrono>
#include <cstdio>
#include <string>
#include <thread>

#include "verne/base/error.hpp"
#include "verne/comm/failure.hpp"
#include "verne/comm/make_communicator.hpp"
#include "verne/comm/mpi_session.hpp"
#include "verne/tensor/cpu_queue.hpp"

namespace verne {
namespace {

ExitCode hang(const MpiSession& session) {
  constexpr double kLimitSeconds = 2;
  Watchdog watchdog(session, kLimitSeconds);
  CpuQueue queue;
  const auto data = make_communicator("data", session.world(), queue, &watchdog);
  Buffer buffer(queue, DType::f32, {4}, MemoryKind::scratch);
  queue.zero(buffer.tensor());
  data->all_reduce(queue, buffer.tensor(), Reduce::sum);
  if (session.rank() == 1) std::this_thread::sleep_for(std::chrono::seconds(60));
  data->broadcast(queue, buffer.tensor(), 1);
  return ExitCode::done;
}

ExitCode end(const MpiSession& session, const std::string& how) {
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
  if (how == "hang") return hang(session);
  if (how == "where") {
    const std::string text = session.report_line(1);
    if (session.rank() == 0) std::puts(text.c_str());
    return ExitCode::done;
  }
  throw InternalError("no such end: " + how);
}

}  // namespace
}  // namespace verne

int main(int argc, char** argv) {
  try {
    const verne::MpiSession session;
    return static_cast<int>(
        verne::run_guarded(session, [&] { return verne::end(session, argc > 1 ? argv[1] : ""); }));
  } catch (const verne::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return static_cast<int>(error.exit_code());
  }
}
