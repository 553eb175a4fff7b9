#include "verne/base/error.hpp"

#include <system_error>

namespace verne {

void throw_errno(const std::string& what, int error_number) {
  throw SystemError(fmt::format("{}: {}", what, std::generic_category().message(error_number)));
}

}  // namespace verne
