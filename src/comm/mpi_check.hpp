#pragma once
#include <mpi.h>

#include <algorithm>
#include <cstdint>
#include <string_view>

namespace verne {

/// Pieces in which large messages travel: MPI counts are 32-bit, and libraries fail near 2 GiB.
inline constexpr std::int64_t kMpiPieceBytes = std::int64_t{1} << 30;

/// Calls transfer(offset, bytes) for each piece that one MPI call takes.
template <class Transfer>
void for_each_piece(std::int64_t bytes, Transfer&& transfer) {
  for (std::int64_t begin = 0; begin < bytes; begin += kMpiPieceBytes) {
    transfer(begin, static_cast<int>(std::min(kMpiPieceBytes, bytes - begin)));
  }
}

/// Throws SystemError with the call, this process's rank and MPI's own text unless `code` is MPI_SUCCESS.
void check_mpi(int code, std::string_view call);

}  // namespace verne
