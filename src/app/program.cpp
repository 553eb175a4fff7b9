#include "verne/app/program.hpp"

#include <fmt/format.h>

#include <cstdio>
#include <exception>
#include <span>

#include "verne/app/help.hpp"
#include "verne/app/run_verb.hpp"
#include "verne/comm/failure.hpp"
#include "verne/comm/mpi_session.hpp"

namespace verne {
namespace {

void print(const std::string& text) {
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

/// A log that cannot be written does not hide what ended the run.
void note_in_logs(const std::string& message) {
  try {
    write_log(LogLevel::error, message);
  } catch (const SystemError&) {
  }
}

ExitCode run_with_mpi(const std::vector<std::string>& command_line, const Invocation& invocation,
                      const std::exception_ptr& bad_command_line) {
  const MpiSession session;
  return run_guarded(session, [&] {
    if (bad_command_line) std::rethrow_exception(bad_command_line);
    const ResolvedDeck resolved = resolve_deck(invocation);
    check_deck(*invocation.verb, resolved.deck);
    Logging logging({.level = resolved.deck.run.log_level, .rank = session.rank()});
    try {
      return run_verb({*invocation.verb, resolved, session, logging, command_line});
    } catch (const std::exception& error) {
      // One rank prints what ends the run; the run's own logs keep what each rank saw.
      logging.leave_screen();
      note_in_logs(error.what());
      throw;
    }
  });
}

ExitCode run(const std::vector<std::string>& command_line) {
  const auto arguments = std::span(command_line).subspan(command_line.empty() ? 0 : 1);
  Invocation invocation;
  std::exception_ptr bad_command_line;
  try {
    invocation = parse_command_line(arguments);
  } catch (const UserError&) {
    // Where there are other ranks, they all have found the same: MPI lets one of them say so.
    if (launcher_size().size == 1) throw;
    bad_command_line = std::current_exception();
  }
  using Request = Invocation::Request;
  if (!bad_command_line && invocation.request != Request::run) {
    switch (invocation.request) {
      case Request::help:
        print(invocation.verb ? verb_help(*invocation.verb) : program_help());
        break;
      case Request::version:
        print(version_text());
        break;
      default:
        print(deck_reference());
    }
    return ExitCode::done;
  }
  return run_with_mpi(command_line, invocation, bad_command_line);
}

}  // namespace

ExitCode run_program(const std::vector<std::string>& command_line) {
  try {
    return run(command_line);
  } catch (const Error& error) {
    fmt::print(stderr, "error: {}\n", printable(error.what()));
    return error.exit_code();
  } catch (const std::exception& error) {
    fmt::print(stderr, "error: {}\n", printable(error.what()));
    return ExitCode::failure;
  }
}

}  // namespace verne
