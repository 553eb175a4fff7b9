#include <cuda.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <exception>

#include "progress_marks.hpp"
#include "verne/base/error.hpp"
#include "verne/tensor/cuda_check.hpp"
#include "verne/tensor/cuda_queue.hpp"

namespace verne {
namespace {

using WriteValue = CUresult (*)(CUstream, CUdeviceptr, cuuint64_t, unsigned);

/// The driver's function, asked of the runtime, so that a program without a driver still links and starts.
WriteValue find_write_value() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  const cudaError_t result =
      cudaGetDriverEntryPointByVersion("cuStreamWriteValue64", &function, 12000, cudaEnableDefault, &found);
  if (result != cudaSuccess || found != cudaDriverEntryPointSuccess || !function) {
    throw_system_error("the CUDA driver has no cuStreamWriteValue64: {}", cudaGetErrorString(result));
  }
  return reinterpret_cast<WriteValue>(function);
}

class CudaMarks final : public ProgressMarks {
 public:
  explicit CudaMarks(CudaQueue& queue) : queue_(queue), write_value_(find_write_value()) {
    queue.use_device();
    void* memory = nullptr;
    check_cuda(cudaHostAlloc(&memory, 2 * sizeof(std::int64_t), cudaHostAllocPortable | cudaHostAllocMapped),
               "cudaHostAlloc");
    counters_ = static_cast<std::int64_t*>(memory);
    std::fill(counters_, counters_ + 2, 0);
    if (const cudaError_t status = cudaHostGetDevicePointer(&memory, counters_, 0); status != cudaSuccess) {
      cudaFreeHost(counters_);
      check_cuda(status, "cudaHostGetDevicePointer");
    }
    address_ = reinterpret_cast<CUdeviceptr>(memory);
  }
  ~CudaMarks() override {
    // The stream may still be going to write. While an exception unwinds it may never get there: then the few
    // bytes stay.
    if (std::uncaught_exceptions() > 0) return;
    cudaStreamSynchronize(queue_.stream());
    cudaFreeHost(counters_);
  }
  CudaMarks(const CudaMarks&) = delete;
  CudaMarks& operator=(const CudaMarks&) = delete;

  void mark_arrived(std::int64_t number) override { write(0, number); }
  void mark_done(std::int64_t number) override { write(1, number); }
  std::int64_t arrived() const override { return __atomic_load_n(counters_, __ATOMIC_ACQUIRE); }
  std::int64_t done() const override { return __atomic_load_n(counters_ + 1, __ATOMIC_ACQUIRE); }

 private:
  void write(std::int64_t counter, std::int64_t number) const {
    queue_.use_device();
    const CUdeviceptr address = address_ + static_cast<CUdeviceptr>(counter) * sizeof(std::int64_t);
    const CUresult result = write_value_(queue_.stream(), address, static_cast<cuuint64_t>(number),
                                         CU_STREAM_WRITE_VALUE_DEFAULT);
    if (result != CUDA_SUCCESS)
      throw_system_error("cuStreamWriteValue64 failed: CUDA driver error {}", static_cast<int>(result));
  }

  CudaQueue& queue_;
  WriteValue write_value_;
  std::int64_t* counters_ = nullptr;
  CUdeviceptr address_ = 0;
};

}  // namespace

std::unique_ptr<ProgressMarks> make_cuda_marks(CudaQueue& queue) {
  return std::make_unique<CudaMarks>(queue);
}

}  // namespace verne
