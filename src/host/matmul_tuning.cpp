#include "verne/host/matmul_tuning.hpp"

#include "verne/ops/matmul.hpp"
#if VERNE_WITH_CUDA
#include "verne/tensor/cuda_queue.hpp"
#endif

namespace verne {

nlohmann::ordered_json choices([[maybe_unused]] ParallelRuntime& runtime) {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
#if VERNE_WITH_CUDA
  if (runtime.compute().kind() == QueueKind::cuda)
    for (const std::string& line : matmul_choices(static_cast<CudaQueue&>(runtime.compute())))
      all.push_back(line);
#endif
  return all;
}

void take_choices([[maybe_unused]] ParallelRuntime& runtime,
                  [[maybe_unused]] const nlohmann::ordered_json& stored) {
#if VERNE_WITH_CUDA
  if (runtime.compute().kind() != QueueKind::cuda) return;
  take_matmul_choices(static_cast<CudaQueue&>(runtime.compute()), stored.get<std::vector<std::string>>());
#endif
}

void share_choices(ParallelRuntime& runtime, const HostGroup& world) {
  if (runtime.compute().kind() != QueueKind::cuda || world.size() == 1) return;
  // Stages meet different shapes: the first rank of each tells its own, and of those that several know the
  // first stage's count.
  const ProcessGrid& grid = runtime.grid();
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (int stage = grid.sizes().pipeline - 1; stage >= 0; --stage) {
    const int speaker = stage * (grid.ranks() / grid.sizes().pipeline);
    const auto told = nlohmann::ordered_json::parse(world.broadcast_text(choices(runtime).dump(), speaker));
    for (const auto& line : told) all.push_back(line);
  }
  take_choices(runtime, all);
}

}  // namespace verne
