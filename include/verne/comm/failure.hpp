#pragma once
#include <functional>

#include "verne/base/error.hpp"
#include "verne/comm/mpi_session.hpp"

namespace verne {

/// Runs `body`, which every rank of the session runs, and returns the exit code to end the program with: the
/// body's, or its error's. Nothing that `body` throws gets past it.
///   An error that every rank meets within kAgreementSeconds is printed once, by rank 0, and all ranks return
///   its code. Where errors differ, rank 0 prints each with the ranks and hosts that met it, and all return
///   the first one's code. Where a rank does not come (it waits in a collective, or works on), each failed
///   rank prints its error with its rank and host and ends every rank at once with the error's code; the call
///   does not return.
/// Errors go to standard error. A rank whose body returned waits here for the others.
ExitCode run_guarded(const MpiSession& session, const std::function<ExitCode()>& body);

/// How long a failed rank waits for the others.
inline constexpr double kAgreementSeconds = 2.0;

}  // namespace verne
