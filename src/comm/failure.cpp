#include "verne/comm/failure.hpp"

#include <mpi.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "mpi_check.hpp"

namespace verne {
namespace {

/// How the body ended on one rank.
struct Outcome {
  ExitCode code = ExitCode::done;
  std::string message;  ///< empty: no error
};

Outcome run(const std::function<ExitCode()>& body) {
  try {
    return {body(), ""};
  } catch (const InternalError& error) {
    return {error.exit_code(), fmt::format("internal error: {}", error.what())};
  } catch (const Error& error) {
    return {error.exit_code(), fmt::format("error: {}", error.what())};
  } catch (const std::bad_alloc&) {
    return {ExitCode::failure, "error: out of host memory"};
  } catch (const std::exception& error) {
    return {ExitCode::failure, fmt::format("error: {}", error.what())};
  } catch (...) {
    return {ExitCode::failure, "internal error: an exception of unknown type"};
  }
}

enum class Patience { until_all_come, a_short_while };

/// Whether every rank came to the end of its body. Polls with sleeps, so that waiting ranks leave the
/// processor to others.
bool all_arrive(const HostGroup& group, Patience patience) {
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Ibarrier(group.communicator(), &request), "MPI_Ibarrier");
  const auto start = std::chrono::steady_clock::now();
  while (true) {
    int done = 0;
    check_mpi(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
    if (done) return true;
    const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - start;
    if (patience == Patience::a_short_while && waited.count() > kAgreementSeconds) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

void print_error(const std::string& text) {
  std::fflush(stdout);
  fmt::print(stderr, "{}\n", printable(text));
  std::fflush(stderr);
}

/// "error: rank 3 on node01: message".
std::string with_place(const std::string& message, const std::string& place) {
  const std::size_t colon = message.find(": ");
  return fmt::format("{}: {}: {}", message.substr(0, colon), place, message.substr(colon + 2));
}

/// All ranks are here: they tell each other how they ended, rank 0 prints, and all return the same code.
ExitCode agree_on_end(const MpiSession& session, const Outcome& own) {
  const HostGroup& group = session.ending();
  const std::vector<std::int64_t> codes = group.all_gather(static_cast<std::int64_t>(own.code));
  const std::vector<std::string> messages = group.all_gather_text(own.message);
  const std::vector<std::string> hosts = group.all_gather_text(session.host());
  std::map<std::string, std::vector<std::size_t>> ranks_of;
  std::size_t first_failed = codes.size();
  for (std::size_t rank = 0; rank < messages.size(); ++rank) {
    if (messages[rank].empty()) continue;
    ranks_of[messages[rank]].push_back(rank);
    if (first_failed == codes.size()) first_failed = rank;
  }
  if (ranks_of.empty()) {
    for (const std::int64_t code : codes) {
      if (code != 0) return static_cast<ExitCode>(code);
    }
    return ExitCode::done;
  }
  if (session.rank() == 0) {
    for (const auto& [message, ranks] : ranks_of) {
      if (ranks.size() == codes.size()) {
        print_error(message);
        continue;
      }
      std::string place = fmt::format("rank {} on {}", ranks[0], hosts[ranks[0]]);
      if (ranks.size() > 1)
        place += fmt::format(" and {} more rank{}", ranks.size() - 1, ranks.size() == 2 ? "" : "s");
      print_error(with_place(message, place));
    }
  }
  return static_cast<ExitCode>(codes[first_failed]);
}

}  // namespace

ExitCode run_guarded(const MpiSession& session, const std::function<ExitCode()>& body) {
  const Outcome own = run(body);
  const bool failed = !own.message.empty();
  if (session.size() == 1) {
    if (failed) print_error(own.message);
    return own.code;
  }
  try {
    if (all_arrive(session.ending(), failed ? Patience::a_short_while : Patience::until_all_come)) {
      return agree_on_end(session, own);
    }
  } catch (const Error& error) {
    print_error(fmt::format("error: rank {} on {}: {}", session.rank(), session.host(), error.what()));
  }
  if (failed)
    print_error(with_place(own.message, fmt::format("rank {} on {}", session.rank(), session.host())));
  const ExitCode code = failed ? own.code : ExitCode::failure;
  MPI_Abort(MPI_COMM_WORLD, static_cast<int>(code));
  std::_Exit(static_cast<int>(code));
}

}  // namespace verne
