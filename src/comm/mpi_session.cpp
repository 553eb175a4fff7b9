#include "verne/comm/mpi_session.hpp"

#include <mpi.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <vector>

#include "mpi_check.hpp"
#include "processors.hpp"
#include "report_text.hpp"
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

const char* plural(bool many) {
  return many ? "s" : "";
}

/// What each rank tells of itself for the report.
struct Place {
  std::int64_t node_leader, threads, bound, online;
  std::int64_t gpu_index;  ///< -1: none
};

/// Ranks of a node and their GPUs: "ranks 0-3, GPUs 0-3", or who shares which: "ranks 0,2 share GPU 0, rank 1
/// has GPU 1". `places` and `addresses` are by rank of the world.
std::string ranks_and_gpus(const std::vector<std::int64_t>& ranks, const std::vector<Place>& places,
                           const std::vector<std::string>& addresses) {
  std::map<std::string, std::vector<std::int64_t>> by_gpu;  // "" where a rank uses none
  std::set<std::int64_t> indices;
  for (const std::int64_t rank : ranks) {
    const auto r = static_cast<std::size_t>(rank);
    by_gpu[addresses[r]].push_back(rank);
    if (!addresses[r].empty()) indices.insert(places[r].gpu_index);
  }
  std::vector<std::string> users;
  bool shared = false;
  std::size_t gpus = 0;
  for (const auto& [address, who] : by_gpu) {
    const std::int64_t index = places[static_cast<std::size_t>(who.front())].gpu_index;
    const bool many = who.size() > 1;
    gpus += !address.empty();
    shared = shared || (many && !address.empty());
    users.push_back(address.empty() ? fmt::format("rank{} {} without a GPU", plural(many), ranges_text(who))
                    : many          ? fmt::format("ranks {} share GPU {}", ranges_text(who), index)
                                    : fmt::format("rank {} has GPU {}", who.front(), index));
  }
  if (shared) return fmt::format("{}", fmt::join(users, ", "));
  const std::string text = fmt::format("rank{} {}", plural(ranks.size() != 1), ranges_text(ranks));
  if (gpus == 0) return text;
  if (indices.size() < gpus) return text + ", a GPU each";
  return fmt::format("{}, GPU{} {}", text, plural(gpus != 1), ranges_text({indices.begin(), indices.end()}));
}

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
  node_ = world_.split_by_node();

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

int MpiSession::gpu_index(int gpus) const {
  require(gpus > 0, "a GPU of a rank that sees none");
  return rank_in_node() % gpus;
}

bool MpiSession::shares_gpus(const std::optional<GpuPlace>& gpu) const {
  std::set<std::string> seen;
  bool shared = false;
  for (const std::string& address : node_.all_gather_text(gpu ? gpu->address : "")) {
    shared = shared || (!address.empty() && !seen.insert(address).second);
  }
  return world_.max(std::int64_t{shared ? 1 : 0}) == 1;
}

std::string MpiSession::report_line(const std::optional<GpuPlace>& gpu) const {
  const Place place{.node_leader = node_.min(rank()),
                    .threads = threads_,
                    .bound = processors_bound_,
                    .online = processors_online_,
                    .gpu_index = gpu ? gpu->index : -1};
  std::string bytes(sizeof(Place), '\0');
  std::memcpy(bytes.data(), &place, sizeof(Place));
  std::vector<Place> places;
  for (const std::string& one : world_.all_gather_text(bytes))
    std::memcpy(&places.emplace_back(), one.data(), sizeof(Place));
  const std::vector<std::string> hosts = world_.all_gather_text(host_),
                                 addresses = world_.all_gather_text(gpu ? gpu->address : "");
  std::map<std::int64_t, std::vector<std::int64_t>> nodes;  // ranks by their node's first
  for (std::int64_t r = 0; r < size(); ++r)
    nodes[places[static_cast<std::size_t>(r)].node_leader].push_back(r);
  std::string text;
  for (const auto& [leader, ranks] : nodes) {
    std::set<std::int64_t> threads;
    for (const std::int64_t r : ranks) threads.insert(places[static_cast<std::size_t>(r)].threads);
    const std::vector<std::int64_t> counts(threads.begin(), threads.end());
    const Place& last = places[static_cast<std::size_t>(ranks.back())];
    text += fmt::format("{}{}: {}, {} thread{} a rank", text.empty() ? "" : "\n",
                        hosts[static_cast<std::size_t>(leader)], ranks_and_gpus(ranks, places, addresses),
                        ranges_text(counts), plural(counts != std::vector<std::int64_t>{1}));
    if (last.bound * 2 <= last.online) {
      text += fmt::format(" (bound to {} of {} processors; mpirun --bind-to none lifts that)", last.bound,
                          last.online);
    }
  }
  return text;
}

}  // namespace verne
