#pragma once
#include <cuda_runtime_api.h>

#include <source_location>
#include <string_view>

#include "verne/base/error.hpp"

namespace verne {

/// SystemError with the call's text, CUDA's words and the place unless `status` is success. Only for sources
/// built with CUDA.
inline void check_cuda(cudaError_t status, std::string_view call,
                       const std::source_location& place = std::source_location::current()) {
  if (status == cudaSuccess) return;
  throw_system_error("CUDA: {} failed: {} ({}), at {}:{}", call, cudaGetErrorString(status),
                     cudaGetErrorName(status), place.file_name(), place.line());
}

/// The same for the kernel that was just launched.
inline void check_launch(std::string_view kernel,
                         const std::source_location& place = std::source_location::current()) {
  check_cuda(cudaGetLastError(), kernel, place);
}

}  // namespace verne
