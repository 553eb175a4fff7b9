#pragma once
#include <sys/wait.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "verne/base/error.hpp"

namespace verne::testing {

struct ProgramResult {
  std::string output;  ///< standard output and error together
  int exit_code = -1;
  double seconds = 0;

  int count(const std::string& text) const {
    int found = 0;
    for (std::size_t at = output.find(text); at != std::string::npos; at = output.find(text, at + 1)) ++found;
    return found;
  }
};

/// Runs a shell command.
inline ProgramResult run_command(const std::string& command) {
  const auto start = std::chrono::steady_clock::now();
  FILE* pipe = ::popen(("(" + command + ") 2>&1").c_str(), "r");
  require(pipe != nullptr, "popen failed for {}", command);
  ProgramResult result;
  std::array<char, 4096> piece{};
  while (const std::size_t bytes = std::fread(piece.data(), 1, piece.size(), pipe)) {
    result.output.append(piece.data(), bytes);
  }
  const int status = ::pclose(pipe);
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

/// Runs one of the tests' programs on `ranks` ranks.
inline ProgramResult run_ranks(int ranks, const std::string& program_and_arguments) {
  return run_command(
      "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 "
      "OMPI_MCA_btl_vader_single_copy_mechanism=none timeout 60 " VERNE_MPIEXEC " -n " +
      std::to_string(ranks) + " " VERNE_PROGRAMS_DIR "/" + program_and_arguments);
}

}  // namespace verne::testing
