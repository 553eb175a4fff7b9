#include "verne/train/matmul_tuning.hpp"

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
  const std::string text = world.broadcast_text(choices(runtime).dump(), 0);
  if (world.rank() != 0) take_choices(runtime, nlohmann::ordered_json::parse(text));
}

}  // namespace verne
