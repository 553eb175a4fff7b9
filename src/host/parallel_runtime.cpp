#include "verne/host/parallel_runtime.hpp"

#include <algorithm>

#include "verne/comm/meta_communicator.hpp"
#include "verne/comm/single_communicator.hpp"
#include "verne/tensor/cpu_queue.hpp"
#if VERNE_WITH_CUDA
#include "verne/tensor/cuda_queue.hpp"
#endif

namespace verne {
namespace {

/// Neighbouring tensor ranks that hold the same kv heads.
int kv_replicas_of(const ModelConfig& model, int tensor_ranks) {
  return model.kv_heads < tensor_ranks ? static_cast<int>(tensor_ranks / model.kv_heads) : 1;
}

FirstCopy first_copy_of(const ProcessGrid& grid, const ModelConfig& model) {
  return {.tensor = grid.tensor() == 0,
          .kv_heads = grid.tensor() % kv_replicas_of(model, grid.sizes().tensor) == 0,
          .stages = grid.pipeline() == 0};
}

bool ties_stages(const ProcessGrid& grid) {
  const int stages = grid.sizes().pipeline;
  return stages > 1 && (grid.pipeline() == 0 || grid.pipeline() == stages - 1);
}

}  // namespace

OwnerPlace ParallelRuntime::owner_place() const {
  return {.rank = data_->rank(), .ranks = data_->size(), .first_copy = first_copy_};
}

void ParallelRuntime::connect(const HostGroup& world, const ModelConfig& model, Link link,
                              Watchdog* watchdog) {
  const ProcessGrid& grid = layout_.grid;
  first_copy_ = first_copy_of(grid, model);
  const auto make = [&](const char* name, const HostGroup& group) {
    return make_communicator(name, group, compute(), watchdog, link);
  };
  const HostGroup tensor = world.split(grid.tensor_colour(), world.rank());
  const HostGroup pipeline = world.split(grid.pipeline_colour(), world.rank());
  const HostGroup embedding = world.split(grid.embedding_colour(), world.rank());
  world_ = make("world", world);
  tensor_ = make("tensor", tensor);
  context_ = make("context", world.split(grid.context_colour(), world.rank()));
  data_ = make("data", world.split(grid.data_context_colour(), world.rank()));
  down_ = make("down", pipeline);
  up_ = make("up", pipeline);
  if (embedding.size() > 1) embedding_ = make("embedding", embedding);
  if (const int replicas = kv_replicas_of(model, grid.sizes().tensor); replicas > 1)
    kv_replicas_ = make("kv_replicas", tensor.split(grid.tensor() / replicas, tensor.rank()));
}

ParallelRuntime ParallelRuntime::cpu(const HostGroup& world, const ParallelLayout& layout,
                                     const ModelConfig& model, int threads, Watchdog* watchdog) {
  ParallelRuntime runtime(layout);
  runtime.queues_.push_back(std::make_unique<CpuQueue>(threads));
  std::fill(runtime.lanes_.begin(), runtime.lanes_.end(), runtime.queues_.front().get());
  runtime.connect(world, model, Link::direct, watchdog);
  return runtime;
}

ParallelRuntime ParallelRuntime::cuda([[maybe_unused]] const HostGroup& world, const ParallelLayout& layout,
                                      [[maybe_unused]] const ModelConfig& model,
                                      [[maybe_unused]] const Gpu& gpu, [[maybe_unused]] Watchdog* watchdog) {
  ParallelRuntime runtime(layout);
#if VERNE_WITH_CUDA
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    // What others wait for goes before what only this rank computes.
    const bool computes = static_cast<Lane>(lane) == Lane::compute;
    runtime.queues_.push_back(std::make_unique<CudaQueue>(
        gpu.index, gpu.determinism, computes ? CudaQueue::Priority::normal : CudaQueue::Priority::high));
    runtime.lanes_[lane] = runtime.queues_.back().get();
  }
  runtime.connect(world, model, gpu.link, watchdog);
  return runtime;
#else
  throw UserError("run.device = cuda: this program was built without CUDA");
#endif
}

ParallelRuntime ParallelRuntime::meta(const ParallelLayout& layout, const ModelConfig& model,
                                      MetaTrace& trace, Determinism determinism) {
  ParallelRuntime runtime(layout);
  const ProcessGrid& grid = layout.grid;
  const ParallelSizes& sizes = grid.sizes();
  constexpr std::array<const char*, kLanes> names = {"compute", "upload", "tensor", "context",
                                                     "data",    "down",   "up"};
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    runtime.queues_.push_back(std::make_unique<MetaQueue>(trace, names[lane], determinism));
    runtime.lanes_[lane] = runtime.queues_.back().get();
  }
  runtime.first_copy_ = first_copy_of(grid, model);
  const auto make = [](const char* name, int rank, int size) -> std::unique_ptr<Communicator> {
    if (size == 1) return std::make_unique<SingleCommunicator>(name);
    return std::make_unique<MetaCommunicator>(name, rank, size);
  };
  runtime.world_ = make("world", grid.rank(), grid.ranks());
  runtime.tensor_ = make("tensor", grid.tensor(), sizes.tensor);
  runtime.context_ = make("context", grid.context(), sizes.context);
  runtime.data_ = make("data", grid.data_context_rank(), sizes.data * sizes.context);
  runtime.down_ = make("down", grid.pipeline(), sizes.pipeline);
  runtime.up_ = make("up", grid.pipeline(), sizes.pipeline);
  if (ties_stages(grid)) runtime.embedding_ = make("embedding", grid.pipeline() == 0 ? 0 : 1, 2);
  if (const int replicas = kv_replicas_of(model, sizes.tensor); replicas > 1)
    runtime.kv_replicas_ = make("kv_replicas", grid.tensor() % replicas, replicas);
  return runtime;
}

}  // namespace verne
