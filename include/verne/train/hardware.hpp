#pragma once
#include <optional>
#include <string>

#include "verne/comm/watchdog.hpp"
#include "verne/train/engine.hpp"
#include "verne/train/model_source.hpp"
#include "verne/train/options.hpp"
#include "verne/train/parallel_runtime.hpp"

namespace verne {

/// Whether a deck's run.device means a GPU here. Throws UserError where cuda is asked for and there is none.
enum class DeviceKind { cpu, cuda };
DeviceKind choose_device(Device wanted);
/// GPUs that this process can see.
int visible_gpus();

/// The dense bf16 peak of the rank's GPU by the vendor's data sheet, in TFLOP/s; nothing on a CPU or for an
/// unknown GPU.
std::optional<double> peak_bf16_tflops(ParallelRuntime& runtime);
/// "cpu, 2 threads" or the GPU's name.
std::string device_text(DeviceKind kind, int gpu, int threads);
/// The GPU that a rank uses; nothing on a CPU.
std::optional<GpuPlace> gpu_place(DeviceKind kind, int gpu);

/// Throws UserError that shows the figures where a plan does not fit into the rank's GPU. Nothing on a CPU.
void check_memory(const EnginePlan& plan, DeviceKind kind, int gpu);
/// A plan's memory by kind, a line each.
std::string memory_text(const EnginePlan& plan);

/// Makes the queues and communicators of this rank. Collective.
ParallelRuntime make_runtime(const HostGroup& world, const ProcessGrid& grid, const ModelConfig& model,
                             TensorParallel::Sequence sequence, DeviceKind kind, int gpu, int threads,
                             ParallelRuntime::Bits bits, Watchdog* watchdog);

/// The model's stored weights into the engine. Collective.
void load_weights(const ModelSource& model, const HostGroup& world, Engine& engine);

}  // namespace verne
