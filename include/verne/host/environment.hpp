#pragma once
#include <map>
#include <string>

namespace verne {

/// What program this is; fixed when it was built.
struct ProgramFacts {
  std::string version;
  std::string git_commit;  ///< "unknown" outside a git checkout; "-dirty" appended where the tree had changes
  std::string compiler;
  std::string build_type;
  std::string source_recipes;  ///< inputs/recipes of the source tree it was built from
};
ProgramFacts program_facts();

/// Versions of the libraries that this process runs with, by name: MPI, HDF5, OpenBLAS, and in a CUDA build
/// the CUDA runtime and driver and NCCL. Needs neither MPI_Init nor a GPU.
std::map<std::string, std::string> library_versions();

std::string host_name();

}  // namespace verne
