#pragma once
#include <optional>
#include <string>

#include "verne/comm/mpi_session.hpp"
#include "verne/comm/watchdog.hpp"
#include "verne/host/options.hpp"
#include "verne/host/parallel_runtime.hpp"

namespace verne {

enum class DeviceKind { cpu, cuda };
/// GPUs that the driver shows this process; 0 without CUDA.
int visible_gpus();

/// What a rank computes on.
struct Machine {
  DeviceKind device = DeviceKind::cpu;
  std::optional<GpuPlace> gpu;
  int ranks_of_gpu = 1;      ///< that share it
  Link link = Link::direct;  ///< staged where any two ranks of the run share a GPU
  int threads = 1;           ///< of the CPU
};
/// Whether a deck's run.device means a GPU here, which one, and who shares it. Collective over the session;
/// throws UserError where cuda is asked for and there is none.
Machine choose_machine(Device wanted, const MpiSession& session, int threads);

/// The dense bf16 peak of the rank's GPU by the vendor's data sheet, in TFLOP/s; nothing on a CPU or for an
/// unknown GPU.
std::optional<double> peak_bf16_tflops(ParallelRuntime& runtime);
/// "cpu, 2 threads" or the GPU's name.
std::string device_text(const Machine& machine);

/// Throws UserError that shows the figures where `memory`, and what libraries take under the layout, does not
/// fit into the rank's share of its GPU. Nothing on a CPU.
void check_memory(const MemoryUse& memory, const ParallelLayout& layout, const Machine& machine);
/// Memory by kind, a line each.
std::string memory_text(const MemoryUse& memory);

/// Makes the queues and communicators of this rank. Collective.
ParallelRuntime make_runtime(const HostGroup& world, const ParallelLayout& layout, const ModelConfig& model,
                             const Machine& machine, Determinism determinism, Watchdog* watchdog);

}  // namespace verne
