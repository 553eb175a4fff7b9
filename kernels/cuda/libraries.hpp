#pragma once
#include <memory>

#include "verne/tensor/cuda_queue.hpp"

namespace verne {

/// A library's handles and caches on one queue.
struct CudaLibrary {
  virtual ~CudaLibrary() = default;
};

struct CudaLibraries {
  std::unique_ptr<CudaLibrary> matmul;     // cuBLASLt
  std::unique_ptr<CudaLibrary> attention;  // cuDNN
};

namespace cuda {

/// The queue's library in a slot of CudaLibraries, made at its first use.
template <class Library>
Library& library_of(CudaQueue& queue, std::unique_ptr<CudaLibrary> CudaLibraries::*slot) {
  auto& libraries = queue.libraries();
  if (!libraries) libraries = {new CudaLibraries, [](CudaLibraries* all) { delete all; }};
  auto& library = (*libraries).*slot;
  if (!library) {
    queue.use_device();
    library = std::make_unique<Library>(queue);
  }
  return static_cast<Library&>(*library);
}

}  // namespace cuda
}  // namespace verne
