#include "verne/host/hardware.hpp"

#include <array>

#include "verne/comm/agree.hpp"
#if VERNE_WITH_CUDA
#include "verne/tensor/cuda_queue.hpp"
#endif

namespace verne {
namespace {

/// What no plan sees: a GPU's context and its libraries' workspaces, and NCCL's buffers of each group of
/// ranks. Together 1.4 GiB were measured on an H200 under CUDA 13 with four data ranks, which are two groups.
constexpr std::int64_t kContextBytes = std::int64_t{1} << 30, kGroupBytes = std::int64_t{256} << 20;

[[maybe_unused]] std::int64_t library_bytes(const ParallelLayout& layout, const Machine& machine) {
  if (machine.link == Link::staged) return kContextBytes;
  const ParallelSizes& sizes = layout.grid.sizes();
  int groups = layout.grid.ranks() > 1 ? 1 : 0;  // the world
  for (const int size : {sizes.tensor, sizes.context, sizes.context * sizes.data}) groups += size > 1 ? 1 : 0;
  if (sizes.pipeline > 1) groups += 3;  // down, up, embedding
  return kContextBytes + groups * kGroupBytes;
}

double gib(std::int64_t bytes) {
  return static_cast<double>(bytes) / static_cast<double>(std::int64_t{1} << 30);
}

DeviceKind choose_device(Device wanted) {
  if (wanted == Device::cpu) return DeviceKind::cpu;
  if (visible_gpus() > 0) return DeviceKind::cuda;
#if VERNE_WITH_CUDA
  require_user(wanted != Device::cuda,
               "run.device = cuda: the driver shows no GPU here; use run.device=cpu or another node");
#else
  require_user(wanted != Device::cuda,
               "run.device = cuda: this program was built without CUDA; use run.device=cpu");
#endif
  return DeviceKind::cpu;
}

}  // namespace

int visible_gpus() {
#if VERNE_WITH_CUDA
  return CudaQueue::device_count();
#else
  return 0;
#endif
}

Machine choose_machine(Device wanted, const MpiSession& session, int threads) {
  Machine machine{.threads = threads};
  agree_after(session.world(), [&] {
    machine.device = choose_device(wanted);
    if (machine.device == DeviceKind::cpu) return;
    GpuPlace gpu{.index = session.gpu_index(visible_gpus())};
#if VERNE_WITH_CUDA
    gpu.address = CudaQueue::device_address(gpu.index);
#endif
    machine.gpu = gpu;
  });
  // With run.device = auto some nodes may have GPUs and others none.
  const std::int64_t on_gpus = session.world().sum(std::int64_t{machine.gpu ? 1 : 0});
  require_user(on_gpus == 0 || on_gpus == session.size(),
               "{} of {} ranks see a GPU: start the run on nodes that are alike, or set run.device", on_gpus,
               session.size());
  if (session.shares_gpus(machine.gpu)) machine.link = Link::staged;
  const std::string own = machine.gpu ? machine.gpu->address : "";
  machine.ranks_of_gpu = 0;
  for (const std::string& address : session.node().all_gather_text(own))
    machine.ranks_of_gpu += address == own;
  return machine;
}

std::string device_text(const Machine& machine) {
  if (machine.device == DeviceKind::cpu)
    return fmt::format("cpu, {} thread{}", machine.threads, machine.threads == 1 ? "" : "s");
#if VERNE_WITH_CUDA
  const std::string shared =
      machine.ranks_of_gpu > 1 ? fmt::format(", shared by {} ranks", machine.ranks_of_gpu) : "";
  return fmt::format("GPU {}: {}{}", machine.gpu->index, CudaQueue::device_name(machine.gpu->index), shared);
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

std::string memory_text(const MemoryUse& memory) {
  std::string text;
  for (int i = 0; i < kMemoryKinds; ++i) {
    const std::int64_t bytes = memory.peak[static_cast<std::size_t>(i)];
    text += fmt::format("  {:<14}{:>10.3f} GiB\n", name(static_cast<MemoryKind>(i)), gib(bytes));
  }
  return text + fmt::format("  {:<14}{:>10.3f} GiB\n", "total", gib(memory.peak_total));
}

void check_memory([[maybe_unused]] const MemoryUse& needed, [[maybe_unused]] const ParallelLayout& layout,
                  const Machine& machine) {
  if (machine.device == DeviceKind::cpu) return;
#if VERNE_WITH_CUDA
  const CudaQueue::DeviceMemory memory = CudaQueue::device_memory(machine.gpu->index);
  const std::int64_t share = memory.free_bytes / machine.ranks_of_gpu;
  const std::int64_t libraries = library_bytes(layout, machine);
  if (needed.peak_total + libraries <= share) return;
  throw_user_error(
      "the model does not fit: this rank needs {:.1f} GiB and {:.1f} GiB for libraries; GPU {} has {:.1f} "
      "GiB free of {:.1f}{}.\n{}"
      "What helps: more ranks (data ranks share the optimizer, tensor and pipeline ranks everything, context "
      "ranks activations), train.recompute=full, a smaller train.micro_batch or data.seq_length.",
      gib(needed.peak_total), gib(libraries), machine.gpu->index, gib(memory.free_bytes),
      gib(memory.total_bytes),
      machine.ranks_of_gpu > 1 ? fmt::format(" for {} ranks that share it", machine.ranks_of_gpu) : "",
      OwnLines{memory_text(needed)});
#endif
}

ParallelRuntime make_runtime(const HostGroup& world, const ParallelLayout& layout, const ModelConfig& model,
                             const Machine& machine, Determinism determinism, Watchdog* watchdog) {
  if (machine.device == DeviceKind::cuda)
    return ParallelRuntime::cuda(
        world, layout, model, {.index = machine.gpu->index, .determinism = determinism, .link = machine.link},
        watchdog);
  return ParallelRuntime::cpu(world, layout, model, machine.threads, watchdog);
}

}  // namespace verne
