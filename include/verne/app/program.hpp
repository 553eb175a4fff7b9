#pragma once
#include <string>
#include <vector>

#include "verne/base/error.hpp"

namespace verne {

/// The program: `command_line` with the program's name. Help and version start neither MPI nor a GPU. Throws
/// nothing.
ExitCode run_program(const std::vector<std::string>& command_line);

}  // namespace verne
