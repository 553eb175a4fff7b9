#include "verne/comm/mpi_session.hpp"

#include <mpi.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <optional>
#include <set>
#include <string_view>
#include <vector>

#include "mpi_check.hpp"
#include "processors.hpp"
#include "verne/base/error.hpp"

namespace verne {
namespace {

std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "unknown-host";
  std::string host = name.data();
  return host.substr(0, host.find('.'));
}

std::optional<int> integer_variable(const char* name) {
  const char* text = std::getenv(name);
  if (!text) return std::nullopt;
  int value = 0;
  const auto [end, error] = std::from_chars(text, text + std::strlen(text), value);
  if (error != std::errc() || *end != '\0') return std::nullopt;
  return value;
}

std::string to_bytes(const std::vector<int>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(int)};
}
std::vector<int> from_bytes(const std::string& bytes) {
  std::vector<int> values(bytes.size() / sizeof(int));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

/// "0-3,8" of ascending numbers.
std::string ranges_text(const std::vector<std::int64_t>& numbers) {
  std::string text;
  for (std::size_t i = 0; i < numbers.size();) {
    std::size_t last = i;
    while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1) ++last;
    text += fmt::format("{}{}", text.empty() ? "" : ",", numbers[i]);
    if (last > i) text += fmt::format("-{}", numbers[last]);
    i = last + 1;
  }
  return text;
}

const char* plural(std::size_t count) {
  return count == 1 ? "" : "s";
}

/// What each rank tells of itself for the report.
struct Place {
  std::int64_t node_leader, threads, gpus, gpu_index, bound, online;
};

}  // namespace

LauncherSize launcher_size() {
  for (const char* name :
       {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"}) {
    if (const auto size = integer_variable(name)) return {*size, name};
  }
  // Inside an allocation Slurm sets its task count everywhere; it started this process where there is a task
  // number too.
  const auto tasks = integer_variable("SLURM_NTASKS");
  if (tasks && std::getenv("SLURM_PROCID")) return {*tasks, "SLURM_NTASKS"};
  if (const auto rank = integer_variable("PMIX_RANK"); rank && *rank > 0) return {*rank + 1, "PMIX_RANK"};
  return {};
}

MpiSession::Library::Library() {
  int initialised = 0;
  MPI_Initialized(&initialised);
  if (initialised) return;
  int provided = MPI_THREAD_SINGLE;
  check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided), "MPI_Init_thread");
  owned_ = true;
  if (provided < MPI_THREAD_FUNNELED)
    throw_system_error("this MPI library cannot be used by a program with threads");
}

MpiSession::Library::~Library() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  // Finalising waits for every rank; while an exception unwinds this one, the others may never come.
  if (owned_ && !finalized && std::uncaught_exceptions() == 0) MPI_Finalize();
}

namespace {

/// Refuses N singletons. `launcher` was read before MPI started.
void check_launch(const LauncherSize& launcher, const HostGroup& world) {
  if (world.size() > 1 || launcher.size <= 1) return;
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> version{};
  int length = 0;
  MPI_Get_library_version(version.data(), &length);
  const std::string_view text(version.data(), static_cast<std::size_t>(length));
  throw_user_error(
      "a launcher started {} processes ({}={}), but MPI sees each as a job of its own. Start them with the "
      "launcher of the "
      "MPI library that verne was built with ({}): `srun --mpi=pmix verne ...`, or the mpirun of that "
      "library (see `which "
      "mpirun` and `mpirun --version`). For one rank alone inside an allocation: `mpirun -n 1 verne ...`",
      launcher.size, launcher.variable, launcher.size, text.substr(0, text.find_first_of(",\n")));
}

}  // namespace

MpiSession::MpiSession() : host_(host_name()) {
  world_ = HostGroup(MPI_COMM_WORLD);
  check_launch(launcher_, world_);
  ending_ = HostGroup(MPI_COMM_WORLD);
  ompi_communicator_t* node = nullptr;
  check_mpi(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank(), MPI_INFO_NULL, &node),
            "MPI_Comm_split_type");
  node_ = HostGroup(node);
  check_mpi(MPI_Comm_free(&node), "MPI_Comm_free");

  const std::vector<int> own = allowed_processors();
  std::vector<std::vector<int>> all;
  std::set<int> bound;
  for (const std::string& bytes : node_.all_gather_text(to_bytes(own))) {
    all.push_back(from_bytes(bytes));
    bound.insert(all.back().begin(), all.back().end());
  }
  threads_ = threads_for_rank(own, all, control_group_processors());
  processors_bound_ = static_cast<int>(bound.size());
  processors_online_ = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
}

MpiSession::~MpiSession() = default;

std::string MpiSession::report_line(int gpus) const {
  const std::int64_t leader = node_.min(rank());
  const Place place{leader, threads_, gpus, rank_in_node(), processors_bound_, processors_online_};
  std::string bytes(sizeof(Place), '\0');
  std::memcpy(bytes.data(), &place, sizeof(Place));
  const std::vector<std::string> places = world_.all_gather_text(bytes),
                                 hosts = world_.all_gather_text(host_);
  std::string text;
  for (std::int64_t node = 0; node < size(); ++node) {
    std::vector<std::int64_t> ranks, gpu_indices;
    std::set<std::int64_t> threads;
    Place last{};
    for (std::int64_t r = 0; r < size(); ++r) {
      Place one{};
      std::memcpy(&one, places[static_cast<std::size_t>(r)].data(), sizeof(Place));
      if (one.node_leader != node) continue;
      last = one;
      ranks.push_back(r);
      threads.insert(one.threads);
      if (one.gpus > 0) gpu_indices.push_back(one.gpu_index);
    }
    if (ranks.empty()) continue;
    text += fmt::format("{}{}: rank{} {}", text.empty() ? "" : "\n", hosts[static_cast<std::size_t>(node)],
                        plural(ranks.size()), ranges_text(ranks));
    if (!gpu_indices.empty()) {
      text += fmt::format(", GPU{} {}", plural(gpu_indices.size()), ranges_text(gpu_indices));
    }
    const std::vector<std::int64_t> counts(threads.begin(), threads.end());
    text += fmt::format(", {} thread{} a rank", ranges_text(counts),
                        counts == std::vector<std::int64_t>{1} ? "" : "s");
    if (last.bound * 2 <= last.online) {
      text += fmt::format(" (bound to {} of {} processors; mpirun --bind-to none lifts that)", last.bound,
                          last.online);
    }
  }
  return text;
}

}  // namespace verne
