#include "verne/tensor/cuda_queue.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "verne/base/checked.hpp"
#include "verne/tensor/cuda_check.hpp"

namespace verne {
/// Making an event costs microseconds, and a step records hundreds: they are used again.
class CudaQueue::EventPool {
 public:
  ~EventPool() {
    for (cudaEvent_t event : free_) cudaEventDestroy(event);
  }
  cudaEvent_t take() {
    if (!free_.empty()) {
      cudaEvent_t event = free_.back();
      free_.pop_back();
      return event;
    }
    cudaEvent_t event = nullptr;
    check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreateWithFlags");
    return event;
  }
  void give_back(cudaEvent_t event) { free_.push_back(event); }

  /// An event that returns to its pool, which it keeps alive. What waits for it already is not disturbed when
  /// it is recorded anew.
  struct Recorded final : Event::State {
    Recorded(std::shared_ptr<EventPool> from, cudaStream_t stream)
        : pool(std::move(from)), event(pool->take()) {
      if (const cudaError_t status = cudaEventRecord(event, stream); status != cudaSuccess) {
        pool->give_back(event);
        check_cuda(status, "cudaEventRecord");
      }
    }
    ~Recorded() override { pool->give_back(event); }
    Recorded(const Recorded&) = delete;
    Recorded& operator=(const Recorded&) = delete;

    void hold(Queue& consumer) override {
      require(consumer.kind() == QueueKind::cuda, "another kind of queue waits for an event of a CUDA queue");
      const auto& queue = static_cast<const CudaQueue&>(consumer);
      queue.use_device();
      check_cuda(cudaStreamWaitEvent(queue.stream(), event, 0), "cudaStreamWaitEvent");
    }
    void wait_on_host() override { check_cuda(cudaEventSynchronize(event), "cudaEventSynchronize"); }
    bool passed() override {
      const cudaError_t status = cudaEventQuery(event);
      if (status == cudaErrorNotReady) return false;
      check_cuda(status, "cudaEventQuery");
      return true;
    }

    std::shared_ptr<EventPool> pool;
    cudaEvent_t event;
  };

 private:
  std::vector<cudaEvent_t> free_;
};

/// A ring of pinned blocks. A block is written again only once the copy out of it has passed.
struct CudaQueue::Staging {
  static constexpr std::int64_t kBlocks = 4;
  static constexpr std::int64_t kBlockBytes = std::int64_t{4} << 20;

  Staging() {
    void* memory = nullptr;
    check_cuda(cudaMallocHost(&memory, kBlocks * kBlockBytes), "cudaMallocHost of the upload ring");
    data = static_cast<std::byte*>(memory);
    for (cudaEvent_t& event : copied) {
      check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreateWithFlags");
    }
  }
  ~Staging() {
    for (cudaEvent_t event : copied) {
      if (event) cudaEventDestroy(event);
    }
    cudaFreeHost(data);
  }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  std::byte* data = nullptr;
  std::array<cudaEvent_t, kBlocks> copied{};
  std::int64_t next = 0;
};

CudaQueue::CudaQueue(int device, Determinism determinism, Priority priority)
    : Queue(QueueKind::cuda),
      device_(device),
      determinism_(determinism),
      events_(std::make_shared<EventPool>()),
      libraries_(nullptr, [](CudaLibraries*) {}) {
  const int devices = device_count();
  if (device < 0 || device >= devices) {
    throw_system_error("GPU {} was asked for, but the driver shows {} (CUDA_VISIBLE_DEVICES may hide some)",
                       device, devices);
  }
  use_device();
  check_cuda(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, device),
             "cudaDeviceGetAttribute");
  int least = 0, greatest = 0;
  check_cuda(cudaDeviceGetStreamPriorityRange(&least, &greatest), "cudaDeviceGetStreamPriorityRange");
  check_cuda(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking,
                                          priority == Priority::high ? greatest : least),
             "cudaStreamCreateWithPriority");
}

CudaQueue::~CudaQueue() {
  cudaSetDevice(device_);
  cudaStreamSynchronize(stream_);
  libraries_.reset();
  staging_.reset();
  cudaFree(workspace_);
  cudaStreamDestroy(stream_);
}

void CudaQueue::use_device() const {
  check_cuda(cudaSetDevice(device_), "cudaSetDevice");
}

int CudaQueue::device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();  // no driver, or none that is new enough: not an error here
    return 0;
  }
  return count;
}

std::string CudaQueue::device_name(int device) {
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  return properties.name;
}

std::string CudaQueue::device_address(int device) {
  std::array<char, 32> address{};
  check_cuda(cudaDeviceGetPCIBusId(address.data(), static_cast<int>(address.size()), device),
             "cudaDeviceGetPCIBusId");
  return address.data();
}

CudaQueue::DeviceMemory CudaQueue::device_memory(int device) {
  check_cuda(cudaSetDevice(device), "cudaSetDevice");
  std::size_t free_bytes = 0, total_bytes = 0;
  check_cuda(cudaMemGetInfo(&free_bytes, &total_bytes), "cudaMemGetInfo");
  return {static_cast<std::int64_t>(free_bytes), static_cast<std::int64_t>(total_bytes)};
}

std::byte* CudaQueue::workspace(std::int64_t bytes) {
  if (bytes > workspace_bytes_) {
    synchronize();
    if (workspace_) release(std::exchange(workspace_, nullptr), workspace_bytes_, MemoryKind::scratch);
    workspace_bytes_ = 0;
    const std::int64_t wanted = round_up(bytes, std::int64_t{1} << 20);
    workspace_ = allocate(wanted, MemoryKind::scratch);
    workspace_bytes_ = wanted;
  }
  return workspace_;
}

std::byte* CudaQueue::allocate(std::int64_t bytes, MemoryKind kind) {
  use_device();
  void* data = nullptr;
  const cudaError_t status = cudaMalloc(&data, static_cast<std::size_t>(std::max<std::int64_t>(bytes, 256)));
  if (status != cudaSuccess) {
    cudaGetLastError();
    std::size_t free_bytes = 0, total_bytes = 0;
    cudaMemGetInfo(&free_bytes, &total_bytes);
    throw_system_error(
        "GPU {} is out of memory: {} bytes wanted for {}, {} of {} free; this queue holds {} ({})", device_,
        bytes, name(kind), free_bytes, total_bytes, memory_.live_total(), cudaGetErrorString(status));
  }
  memory_.add(kind, bytes);
  return static_cast<std::byte*>(data);
}

void CudaQueue::release(std::byte* data, std::int64_t bytes, MemoryKind kind) {
  cudaSetDevice(device_);
  cudaFree(data);  // waits for the device; called from destructors, so a broken device must not throw here
  memory_.remove(kind, bytes);
}

void CudaQueue::upload(const Tensor& to, std::span<const std::byte> from) {
  require(to.contiguous() && to.bytes() == std::ssize(from), "upload of {} bytes into {}", from.size(),
          to.bytes());
  use_device();
  if (!staging_) staging_ = std::make_unique<Staging>();
  for (std::int64_t begin = 0; begin < std::ssize(from); begin += Staging::kBlockBytes) {
    const auto bytes = static_cast<std::size_t>(std::min(Staging::kBlockBytes, std::ssize(from) - begin));
    const std::int64_t block = staging_->next;
    staging_->next = (block + 1) % Staging::kBlocks;
    const cudaEvent_t copied = staging_->copied[static_cast<std::size_t>(block)];
    check_cuda(cudaEventSynchronize(copied), "cudaEventSynchronize");
    std::byte* pinned = staging_->data + block * Staging::kBlockBytes;
    std::memcpy(pinned, from.data() + begin, bytes);
    check_cuda(cudaMemcpyAsync(to.raw() + begin, pinned, bytes, cudaMemcpyHostToDevice, stream_),
               "cudaMemcpyAsync");
    check_cuda(cudaEventRecord(copied, stream_), "cudaEventRecord");
  }
}

void CudaQueue::download(std::span<std::byte> to, const Tensor& from) {
  require(from.contiguous() && from.bytes() == std::ssize(to), "download of {} bytes into {}", from.bytes(),
          to.size());
  use_device();
  check_cuda(cudaMemcpyAsync(to.data(), from.raw(), to.size(), cudaMemcpyDeviceToHost, stream_),
             "cudaMemcpyAsync");
  check_cuda(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
}

void CudaQueue::copy(const Tensor& to, const Tensor& from) {
  require(to.contiguous() && from.contiguous() && to.bytes() == from.bytes(), "copy of {} bytes into {}",
          from.bytes(), to.bytes());
  use_device();
  check_cuda(cudaMemcpyAsync(to.raw(), from.raw(), static_cast<std::size_t>(to.bytes()),
                             cudaMemcpyDeviceToDevice, stream_),
             "cudaMemcpyAsync");
}

void CudaQueue::zero(const Tensor& tensor) {
  require(tensor.contiguous(), "zero of a strided tensor {}", tensor.shape().text());
  use_device();
  check_cuda(cudaMemsetAsync(tensor.raw(), 0, static_cast<std::size_t>(tensor.bytes()), stream_),
             "cudaMemsetAsync");
}

std::byte* CudaQueue::allocate_host(std::int64_t bytes) {
  use_device();
  void* data = nullptr;
  const cudaError_t status = cudaHostAlloc(
      &data, static_cast<std::size_t>(std::max<std::int64_t>(bytes, 256)), cudaHostAllocPortable);
  if (status != cudaSuccess) {
    cudaGetLastError();
    throw_system_error("{} bytes of pinned host memory cannot be had: {}", bytes, cudaGetErrorString(status));
  }
  return static_cast<std::byte*>(data);
}

void CudaQueue::release_host(std::byte* data) {
  cudaSetDevice(device_);
  cudaFreeHost(data);
}

void CudaQueue::copy_from_host(const Tensor& to, std::span<const std::byte> from) {
  require(to.contiguous() && to.bytes() == std::ssize(from), "copy of {} host bytes into {}", from.size(),
          to.bytes());
  use_device();
  check_cuda(cudaMemcpyAsync(to.raw(), from.data(), from.size(), cudaMemcpyHostToDevice, stream_),
             "cudaMemcpyAsync");
}

void CudaQueue::copy_to_host(std::span<std::byte> to, const Tensor& from) {
  require(from.contiguous() && from.bytes() == std::ssize(to), "copy of {} bytes into {} of the host",
          from.bytes(), to.size());
  use_device();
  check_cuda(cudaMemcpyAsync(to.data(), from.raw(), to.size(), cudaMemcpyDeviceToHost, stream_),
             "cudaMemcpyAsync");
}

Event CudaQueue::record() {
  use_device();
  return Event(std::make_unique<EventPool::Recorded>(events_, stream_));
}

void CudaQueue::synchronize() {
  use_device();
  check_cuda(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
}

}  // namespace verne
