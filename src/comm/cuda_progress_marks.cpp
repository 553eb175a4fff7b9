#include <cuda.h>
#include <cuda_runtime_api.h>

#include <algorithm>

#include "progress_marks.hpp"
#include "verne/base/error.hpp"
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
  CudaMarks() : write_value_(find_write_value()) {
    void* memory = nullptr;
    const cudaError_t result =
        cudaHostAlloc(&memory, 2 * sizeof(std::int64_t), cudaHostAllocPortable | cudaHostAllocMapped);
    if (result != cudaSuccess) throw_system_error("cudaHostAlloc failed: {}", cudaGetErrorString(result));
    counters_ = static_cast<std::int64_t*>(memory);
    std::fill(counters_, counters_ + 2, 0);
  }
  ~CudaMarks() override { cudaFreeHost(counters_); }
  CudaMarks(const CudaMarks&) = delete;
  CudaMarks& operator=(const CudaMarks&) = delete;

  void mark_arrived(Queue& queue, std::int64_t number) override { write(queue, counters_, number); }
  void mark_done(Queue& queue, std::int64_t number) override { write(queue, counters_ + 1, number); }
  std::int64_t arrived() const override { return __atomic_load_n(counters_, __ATOMIC_ACQUIRE); }
  std::int64_t done() const override { return __atomic_load_n(counters_ + 1, __ATOMIC_ACQUIRE); }

 private:
  void write(Queue& queue, std::int64_t* counter, std::int64_t number) const {
    require(queue.kind() == QueueKind::cuda, "a watched NCCL communicator was given a queue of another kind");
    void* address = nullptr;
    const cudaError_t mapped = cudaHostGetDevicePointer(&address, counter, 0);
    if (mapped != cudaSuccess)
      throw_system_error("cudaHostGetDevicePointer failed: {}", cudaGetErrorString(mapped));
    const CUresult result =
        write_value_(static_cast<CudaQueue&>(queue).stream(), reinterpret_cast<CUdeviceptr>(address),
                     static_cast<cuuint64_t>(number), CU_STREAM_WRITE_VALUE_DEFAULT);
    if (result != CUDA_SUCCESS)
      throw_system_error("cuStreamWriteValue64 failed: CUDA driver error {}", static_cast<int>(result));
  }

  WriteValue write_value_;
  std::int64_t* counters_ = nullptr;
};

}  // namespace

std::unique_ptr<ProgressMarks> make_cuda_marks() {
  return std::make_unique<CudaMarks>();
}

}  // namespace verne
