#include "verne/train/hardware.hpp"

#include <array>

#include "verne/checkpoint/convert.hpp"
#include "verne/io/load.hpp"
#if VERNE_WITH_CUDA
#include "verne/tensor/cuda_queue.hpp"
#endif

namespace verne {
namespace {

/// A GPU's context, its libraries' workspaces and NCCL's buffers, which no plan sees. Measured: 1.4 GiB on an
/// H200 under CUDA 13 with four data ranks (docs/measurements.md).
constexpr std::int64_t kLibraryBytes = std::int64_t{1536} << 20;

double gib(std::int64_t bytes) {
  return static_cast<double>(bytes) / static_cast<double>(std::int64_t{1} << 30);
}

}  // namespace

int visible_gpus() {
#if VERNE_WITH_CUDA
  return CudaQueue::device_count();
#else
  return 0;
#endif
}

DeviceKind choose_device(Device wanted) {
  if (wanted == Device::cpu) return DeviceKind::cpu;
  const int gpus = visible_gpus();
  if (gpus > 0) return DeviceKind::cuda;
#if VERNE_WITH_CUDA
  require_user(wanted != Device::cuda,
               "run.device = cuda: the driver shows no GPU here; use run.device=cpu or another node");
#else
  require_user(wanted != Device::cuda,
               "run.device = cuda: this program was built without CUDA; use run.device=cpu");
#endif
  return DeviceKind::cpu;
}

std::string device_text(DeviceKind kind, [[maybe_unused]] int gpu, int threads) {
  if (kind == DeviceKind::cpu) return fmt::format("cpu, {} thread{}", threads, threads == 1 ? "" : "s");
#if VERNE_WITH_CUDA
  return fmt::format("GPU {}: {}", gpu, CudaQueue::device_name(gpu));
#else
  return "cuda";
#endif
}

std::optional<double> peak_bf16_tflops([[maybe_unused]] ParallelRuntime& runtime) {
#if VERNE_WITH_CUDA
  if (runtime.compute().kind() != QueueKind::cuda) return std::nullopt;
  struct Peak {
    const char* name;
    double tflops;
  };
  // Dense bf16, SXM parts, NVIDIA's data sheets.
  constexpr std::array peaks = {Peak{"H200", 989}, Peak{"H100", 989}, Peak{"H800", 989}, Peak{"A100", 312},
                                Peak{"B200", 2250}};
  const std::string name = CudaQueue::device_name(static_cast<CudaQueue&>(runtime.compute()).device());
  for (const Peak& peak : peaks)
    if (name.find(peak.name) != std::string::npos) return peak.tflops;
#endif
  return std::nullopt;
}

std::string memory_text(const EnginePlan& plan) {
  std::string text;
  for (int i = 0; i < kMemoryKinds; ++i) {
    const std::int64_t bytes = plan.memory.peak[static_cast<std::size_t>(i)];
    text += fmt::format("  {:<14}{:>10.3f} GiB\n", name(static_cast<MemoryKind>(i)), gib(bytes));
  }
  return text + fmt::format("  {:<14}{:>10.3f} GiB\n", "total", gib(plan.memory.peak_total));
}

void check_memory([[maybe_unused]] const EnginePlan& plan, DeviceKind kind, [[maybe_unused]] int gpu) {
  if (kind == DeviceKind::cpu) return;
#if VERNE_WITH_CUDA
  const CudaQueue::DeviceMemory memory = CudaQueue::device_memory(gpu);
  if (plan.memory.peak_total + kLibraryBytes <= memory.free_bytes) return;
  throw_user_error(
      "the model does not fit: this rank needs {:.1f} GiB and {:.1f} GiB for libraries; GPU {} has {:.1f} "
      "GiB free of {:.1f}.\n{}"
      "What helps: more ranks (data ranks share the optimizer, tensor ranks everything), "
      "train.recompute=full, a smaller "
      "train.micro_batch or data.seq_length.",
      gib(plan.memory.peak_total), gib(kLibraryBytes), gpu, gib(memory.free_bytes), gib(memory.total_bytes),
      memory_text(plan));
#endif
}

ParallelRuntime make_runtime(const HostGroup& world, const ProcessGrid& grid, const ModelConfig& model,
                             TensorParallel::Sequence sequence, DeviceKind kind, int gpu, int threads,
                             ParallelRuntime::Bits bits, Watchdog* watchdog) {
  if (kind == DeviceKind::cuda)
    return ParallelRuntime::cuda(world, grid, model, sequence, gpu, bits, watchdog);
  return ParallelRuntime::cpu(world, grid, model, sequence, threads, watchdog);
}

void load_weights(const ModelSource& model, const HostGroup& world, Engine& engine) {
  check_duplicates(model.weights(), duplicate_tensors(model.config()), world);
  load_parts(model.weights(), world, engine.runtime().compute(), engine.weight_parts(DType::f32));
  engine.weights_changed();
}

}  // namespace verne
