#include "mpi_check.hpp"

#include <array>
#include <string>

#include "verne/base/error.hpp"

namespace verne {

void check_mpi(int code, std::string_view call) {
  if (code == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING + 1> text{};
  int length = 0;
  if (MPI_Error_string(code, text.data(), &length) != MPI_SUCCESS) length = 0;
  int rank = -1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  throw_system_error("{} failed on rank {}: {}", call, rank,
                     std::string_view(text.data(), static_cast<std::size_t>(length)));
}

}  // namespace verne
