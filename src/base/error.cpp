#include "verne/base/error.hpp"

#include <cerrno>
#include <system_error>

namespace verne {

bool is_disk_full(int error_number) {
  return error_number == ENOSPC || error_number == EDQUOT || error_number == EFBIG;
}

std::string reason_of(int error_number) {
  const std::string reason = std::generic_category().message(error_number);
  return is_disk_full(error_number) ? fmt::format("the disk is full or a size limit is reached ({})", reason)
                                    : reason;
}

void throw_errno(const std::string& what, int error_number) {
  throw_system_error("{}: {}", what, reason_of(error_number));
}

}  // namespace verne
