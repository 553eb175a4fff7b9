#include "verne/train/parallel_runtime.hpp"

#include "verne/comm/make_communicator.hpp"
#include "verne/comm/meta_communicator.hpp"
#include "verne/tensor/cpu_queue.hpp"
#include "verne/tensor/meta_queue.hpp"
#if VERNE_WITH_CUDA
#include "verne/tensor/cuda_queue.hpp"
#endif

namespace verne {
namespace {

/// Neighbouring tensor ranks that hold the same kv heads.
int kv_replicas_of(const ModelConfig& model, int tensor_ranks) {
  return model.kv_heads < tensor_ranks ? static_cast<int>(tensor_ranks / model.kv_heads) : 1;
}

}  // namespace

void ParallelRuntime::connect(const HostGroup& world, const ModelConfig& model, Watchdog* watchdog) {
  const HostGroup tensor = world.split(grid_.tensor_colour(), world.rank());
  const HostGroup data = world.split(grid_.data_context_colour(), world.rank());
  tensor_ = make_communicator("tensor", tensor, compute(), watchdog);
  data_ = make_communicator("data", data, compute(), watchdog);
  if (const int replicas = kv_replicas_of(model, grid_.sizes().tensor); replicas > 1)
    kv_replicas_ = make_communicator("kv_replicas", tensor.split(grid_.tensor() / replicas, tensor.rank()),
                                     compute(), watchdog);
}

ParallelRuntime ParallelRuntime::cpu(const HostGroup& world, const ProcessGrid& grid,
                                     const ModelConfig& model, TensorParallel::Sequence sequence, int threads,
                                     Watchdog* watchdog) {
  ParallelRuntime runtime(grid, sequence);
  runtime.queues_.push_back(std::make_unique<CpuQueue>(threads));
  runtime.connect(world, model, watchdog);
  return runtime;
}

ParallelRuntime ParallelRuntime::cuda([[maybe_unused]] const HostGroup& world, const ProcessGrid& grid,
                                      [[maybe_unused]] const ModelConfig& model,
                                      TensorParallel::Sequence sequence, [[maybe_unused]] int device,
                                      [[maybe_unused]] Bits bits, [[maybe_unused]] Watchdog* watchdog) {
  ParallelRuntime runtime(grid, sequence);
#if VERNE_WITH_CUDA
  const Determinism determinism = bits == Bits::reproducible ? Determinism::deterministic : Determinism::fast;
  for (int i = 0; i < 3; ++i) runtime.queues_.push_back(std::make_unique<CudaQueue>(device, determinism));
  runtime.connect(world, model, watchdog);
  return runtime;
#else
  throw UserError("run.device = cuda: this program was built without CUDA");
#endif
}

ParallelRuntime ParallelRuntime::meta(MetaTrace& trace, const ProcessGrid& grid, const ModelConfig& model,
                                      TensorParallel::Sequence sequence) {
  ParallelRuntime runtime(grid, sequence);
  runtime.queues_.push_back(std::make_unique<MetaQueue>(trace, "compute"));
  const ParallelSizes& sizes = grid.sizes();
  runtime.tensor_ = std::make_unique<MetaCommunicator>("tensor", grid.tensor(), sizes.tensor);
  runtime.data_ = std::make_unique<MetaCommunicator>("data", grid.data() * sizes.context + grid.context(),
                                                     sizes.data * sizes.context);
  if (const int replicas = kv_replicas_of(model, sizes.tensor); replicas > 1)
    runtime.kv_replicas_ =
        std::make_unique<MetaCommunicator>("kv_replicas", grid.tensor() % replicas, replicas);
  return runtime;
}

}  // namespace verne
