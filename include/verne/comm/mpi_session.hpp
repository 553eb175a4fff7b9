#pragma once
#include <optional>
#include <string>

#include "verne/comm/host_group.hpp"

namespace verne {

/// How many processes a launcher says it started, from its environment variables (Open MPI's, PMI's, Slurm's,
/// MVAPICH's), and which variable said so; {1, ""} where none does. Looked at before MPI starts: MPI sets
/// some of them itself.
struct LauncherSize {
  int size = 1;
  std::string variable;
};
LauncherSize launcher_size();

/// The GPU that a rank uses.
struct GpuPlace {
  int index = 0;  ///< among those that the rank sees
  /// What tells it from the node's other ones: where a launcher shows each rank a GPU of its own, all are
  /// number 0.
  std::string address;
};

/// MPI for the lifetime of the program: initialised by the constructor (unless it is already) and finalised
/// by the destructor (where this object initialised it, and no exception is unwinding). Without a launcher it
/// is a world of one rank. All of it is collective over the world.
class MpiSession {
 public:
  /// Throws UserError where a launcher started several processes that MPI does not see as one job (N
  /// singletons).
  MpiSession();
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  const HostGroup& world() const { return world_; }
  /// The ranks on this rank's node, ordered as in the world.
  const HostGroup& node() const { return node_; }
  /// A group of all ranks for the agreement on how the program ends, and for nothing else.
  const HostGroup& ending() const { return ending_; }

  int rank() const { return world_.rank(); }
  int size() const { return world_.size(); }
  int rank_in_node() const { return node_.rank(); }
  /// Which of the `gpus` that this rank sees it uses: ranks of a node take them in turn.
  int gpu_index(int gpus) const;
  /// Whether two ranks of any node use the same GPU; the same answer on every rank. Collective.
  bool shares_gpus(const std::optional<GpuPlace>& gpu) const;
  const std::string& host() const { return host_; }
  /// Threads that this rank may keep busy: the node's processors that its ranks are allowed to run on, shared
  /// out among them, within the limit of the control group; at least 1.
  int threads() const { return threads_; }

  /// Who runs where, a line a node, the same on every rank: "node01: ranks 0-3, GPUs 0-3, 4 threads a rank",
  /// or "node01: ranks 0,2 share GPU 0, ranks 1,3 share GPU 1, 4 threads a rank". `gpu` is this rank's, if
  /// any. Collective.
  std::string report_line(const std::optional<GpuPlace>& gpu) const;

 private:
  /// Initialises MPI before the groups are made and finalises it after they are gone.
  class Library {
   public:
    Library();
    ~Library();
    Library(const Library&) = delete;
    Library& operator=(const Library&) = delete;

   private:
    bool owned_ = false;
  };

  LauncherSize launcher_ = launcher_size();
  Library library_;
  HostGroup world_, node_, ending_;
  std::string host_;
  int threads_ = 1;
  int processors_bound_ = 1, processors_online_ = 1;  ///< of the node: those its ranks may use, and all
};

}  // namespace verne
