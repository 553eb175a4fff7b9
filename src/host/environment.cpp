#include "verne/host/environment.hpp"

#include <fmt/format.h>
#include <hdf5.h>
#include <mpi.h>
#include <unistd.h>

#include <array>
#include <string>

#include "build_facts.hpp"

#if VERNE_WITH_CUDA
#include <cuda_runtime_api.h>
#include <nccl.h>
#endif

namespace verne {

ProgramFacts program_facts() {
  return {kBuildVersion, kBuildGitCommit, fmt::format("{} {}", kBuildCompiler, __VERSION__), kBuildType,
          kSourceRecipes};
}

std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0 || name[0] == '\0') return "unknown";
  return name.data();
}

std::map<std::string, std::string> library_versions() {
  std::map<std::string, std::string> versions;
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  if (MPI_Get_library_version(text.data(), &length) == MPI_SUCCESS) {
    const std::string mpi(text.data(), static_cast<std::size_t>(length));
    versions["mpi"] = mpi.substr(0, mpi.find(", package"));
  }
  unsigned major = 0, minor = 0, release = 0;
  if (H5get_libversion(&major, &minor, &release) >= 0)
    versions["hdf5"] = fmt::format("{}.{}.{}", major, minor, release);
#if VERNE_WITH_CUDA
  const auto dotted = [](int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); };
  int version = 0;
  if (cudaRuntimeGetVersion(&version) == cudaSuccess) versions["cuda_runtime"] = dotted(version);
  // 0 where there is no driver.
  if (cudaDriverGetVersion(&version) == cudaSuccess && version > 0) versions["cuda_driver"] = dotted(version);
  if (ncclGetVersion(&version) == ncclSuccess) {
    versions["nccl"] = fmt::format("{}.{}.{}", version / 10000, version % 10000 / 100, version % 100);
  }
#endif
  return versions;
}

}  // namespace verne
