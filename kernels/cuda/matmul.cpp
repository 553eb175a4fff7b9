#include "verne/ops/matmul.hpp"

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <sstream>

#include "cuda/libraries.hpp"
#include "cuda/matmul_own.hpp"
#include "verne/base/checked.hpp"
#include "verne/base/log.hpp"
#include "verne/ops/bias.hpp"
#include "verne/tensor/cuda_check.hpp"

namespace verne {
namespace cuda {
namespace {

constexpr std::int64_t kWorkspaceBytes = std::int64_t{32} << 20;
constexpr int kCandidates = 16;
/// Of the candidates so many are looked at further, none that alone is this much slower than the fastest.
constexpr std::size_t kContenders = 6;
constexpr float kHopeless = 1.12f;
/// Training runs at the GPU's power limit, where an algorithm that needs less power is faster than one that
/// leads in a run of its own after a pause: up to 5 % on an H200. So the limit is reached first, and each
/// contender runs a while before it is timed, and while it is.
constexpr float kHeatMs = 100, kSettleMs = 20, kTimedMs = 30;
/// Matmuls below this are too short for the limit to matter.
constexpr float kShortMs = 0.05f;

void check_cublas(cublasStatus_t status, std::string_view call) {
  if (status != CUBLAS_STATUS_SUCCESS) {
    throw_system_error("cuBLASLt {}: {} failed: {}", cublasLtGetVersion(), call,
                       cublasLtGetStatusString(status));
  }
}

template <class Handle, cublasStatus_t (*kDestroy)(Handle)>
struct Destroy {
  using pointer = Handle;
  void operator()(Handle handle) const { kDestroy(handle); }
};
using Layout =
    std::unique_ptr<cublasLtMatrixLayout_t, Destroy<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>>;
using Description =
    std::unique_ptr<cublasLtMatmulDesc_t, Destroy<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>>;
using Preference = std::unique_ptr<cublasLtMatmulPreference_t,
                                   Destroy<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>>;

cudaDataType_t cuda_type(DType type) {
  if (type == DType::f32) return CUDA_R_32F;
  if (type == DType::bf16) return CUDA_R_16BF;
  throw InternalError(fmt::format("CUDA matmul of {}", name(type)));
}

/// Largest power of two up to 16 that divides the address.
std::int64_t alignment(const Tensor& tensor) {
  const auto address = reinterpret_cast<std::uintptr_t>(tensor.raw()) | 16u;
  return static_cast<std::int64_t>(address & (~address + 1));
}

/// What an algorithm is chosen for. Adding to d runs the same algorithm as overwriting it.
constexpr std::size_t kKeyFields = 14;
using Key = std::array<std::int64_t, kKeyFields>;
Key key_of(const Matmul& op) {
  const Tensor &a = op.a.data, &b = op.b.data;
  return {op.m(),
          op.n(),
          op.k(),
          op.transpose_a == Transpose::yes,
          op.transpose_b == Transpose::yes,
          a.stride(),
          b.stride(),
          op.d.stride(),
          static_cast<std::int64_t>(a.dtype()),
          static_cast<std::int64_t>(op.d.dtype()),
          alignment(a),
          alignment(b),
          alignment(op.d),
          op.bias ? alignment(op.bias) : 0};
}

/// cuBLASLt reads matrices by columns: a row-major matrix is its transpose there. So it computes dᵀ =
/// op(b)ᵀ·op(a)ᵀ, and its first factor is our b. Its bias goes down a column of dᵀ, which is a row of d.
struct Problem {
  explicit Problem(const Matmul& op) {
    cublasLtMatmulDesc_t raw = nullptr;
    // Float32 stays float32: this compute type does not round the factors to TF32.
    check_cublas(cublasLtMatmulDescCreate(&raw, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
    description.reset(raw);
    set_operation(CUBLASLT_MATMUL_DESC_TRANSA, op.transpose_b);
    set_operation(CUBLASLT_MATMUL_DESC_TRANSB, op.transpose_a);
    if (op.bias) set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    take_bias(op);
    first = layout(op.b.data);
    second = layout(op.a.data);
    result = layout(op.d);
  }
  /// What is not of the shape alone: where the bias lies.
  void take_bias(const Matmul& op) const {
    const void* bias = op.bias.raw();
    if (bias) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
  }

  Description description;
  Layout first, second, result;

 private:
  template <class Value>
  void set(cublasLtMatmulDescAttributes_t attribute, Value value) const {
    check_cublas(cublasLtMatmulDescSetAttribute(description.get(), attribute, &value, sizeof(value)),
                 "cublasLtMatmulDescSetAttribute");
  }
  void set_operation(cublasLtMatmulDescAttributes_t attribute, Transpose transpose) const {
    set(attribute, transpose == Transpose::yes ? CUBLAS_OP_T : CUBLAS_OP_N);
  }
  static Layout layout(const Tensor& x) {
    cublasLtMatrixLayout_t raw = nullptr;
    check_cublas(cublasLtMatrixLayoutCreate(&raw, cuda_type(x.dtype()), static_cast<std::uint64_t>(x.size(1)),
                                            static_cast<std::uint64_t>(x.size(0)), x.stride()),
                 "cublasLtMatrixLayoutCreate");
    return Layout(raw);
  }
};

/// Two events that measure what was enqueued between them.
class Stopwatch {
 public:
  explicit Stopwatch(cudaStream_t stream) : stream_(stream) {
    for (cudaEvent_t& event : events_) check_cuda(cudaEventCreate(&event), "cudaEventCreate");
  }
  ~Stopwatch() {
    for (cudaEvent_t event : events_) cudaEventDestroy(event);
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

  template <class Body>
  float milliseconds(Body&& body) {
    check_cuda(cudaEventRecord(events_[0], stream_), "cudaEventRecord");
    body();
    check_cuda(cudaEventRecord(events_[1], stream_), "cudaEventRecord");
    check_cuda(cudaEventSynchronize(events_[1]), "cudaEventSynchronize");
    float elapsed = 0;
    check_cuda(cudaEventElapsedTime(&elapsed, events_[0], events_[1]), "cudaEventElapsedTime");
    return elapsed;
  }

 private:
  cudaStream_t stream_;
  std::array<cudaEvent_t, 2> events_{};
};

class MatmulLibrary final : public CudaLibrary {
 public:
  explicit MatmulLibrary(CudaQueue& queue) : queue_(queue) {
    check_cublas(cublasLtCreate(&handle_), "cublasLtCreate");
  }
  ~MatmulLibrary() override { cublasLtDestroy(handle_); }
  MatmulLibrary(const MatmulLibrary&) = delete;
  MatmulLibrary& operator=(const MatmulLibrary&) = delete;

  void run(const Matmul& op) {
    queue_.use_device();
    // The library adds a bias of d's type alone.
    const bool takes_bias = !op.bias || op.bias.dtype() == op.d.dtype();
    if (takes_bias && multiply(op)) return;
    if (op.bias) {
      Matmul without = op;
      without.bias = {};
      if (multiply(without)) return launch(queue_, AddBias{.y = op.d, .bias = op.bias});
    }
    own_matmul(queue_, op);
  }

  std::vector<std::string> choices() const {
    std::vector<std::string> lines;
    for (const auto& [key, algorithm] : choices_) {
      lines.push_back(
          fmt::format("{} {} {:016x}", prefix(), fmt::join(key, " "), fmt::join(algorithm.data, "")));
    }
    return lines;
  }

  void take(const std::vector<std::string>& lines) {
    for (const std::string& line : lines) {
      if (!line.starts_with(prefix() + " "))
        continue;  // another version, GPU or form of key: measured here instead
      std::istringstream text(line.substr(prefix().size()));
      Key key{};
      for (std::int64_t& field : key) text >> field;
      std::string hex;
      text >> hex;
      cublasLtMatmulAlgo_t algorithm{};
      constexpr std::size_t kDigits = 16;
      if (!text || hex.size() != std::size(algorithm.data) * kDigits ||
          hex.find_first_not_of("0123456789abcdef") != std::string::npos) {
        throw_user_error("a stored matmul choice cannot be read: \"{}\"", line);
      }
      for (std::size_t i = 0; i < std::size(algorithm.data); ++i) {
        algorithm.data[i] = std::stoull(hex.substr(i * kDigits, kDigits), nullptr, 16);
      }
      choices_.insert_or_assign(key, algorithm);
      shapes_.erase(key);
    }
  }

 private:
  struct Shape {
    Problem problem;
    std::optional<cublasLtMatmulAlgo_t> algorithm;  // none: cuBLASLt does not take the shape
  };

  /// What must agree for a choice to mean the same.
  std::string prefix() const {
    int major = 0, minor = 0;
    check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, queue_.device()),
               "cudaDeviceGetAttribute");
    check_cuda(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, queue_.device()),
               "cudaDeviceGetAttribute");
    return fmt::format("cublaslt {} sm_{}{} {}sm {}f", cublasLtGetVersion(), major, minor,
                       queue_.multiprocessors(), kKeyFields);
  }

  /// False where cuBLASLt does not take the shape.
  bool multiply(const Matmul& op) {
    const Key key = key_of(op);
    auto found = shapes_.find(key);
    if (found == shapes_.end()) {
      Shape shape{.problem = Problem(op), .algorithm = {}};
      const auto choice = choices_.find(key);
      if (choice != choices_.end() && usable(shape.problem, choice->second)) {
        shape.algorithm = choice->second;
      } else if ((shape.algorithm = choose(op, shape.problem))) {
        choices_.insert_or_assign(key, *shape.algorithm);
      }
      found = shapes_.emplace(key, std::move(shape)).first;
    }
    const Shape& shape = found->second;
    if (!shape.algorithm) return false;
    shape.problem.take_bias(op);
    check_cublas(launch_library(op, shape.problem, *shape.algorithm, op.d.raw(), op.accumulate),
                 "cublasLtMatmul");
    return true;
  }

  cublasStatus_t launch_library(const Matmul& op, const Problem& problem,
                                const cublasLtMatmulAlgo_t& algorithm, std::byte* d, Accumulate accumulate) {
    const float alpha = 1.0f, beta = accumulate == Accumulate::yes ? 1.0f : 0.0f;
    return cublasLtMatmul(handle_, problem.description.get(), &alpha, op.b.data.raw(), problem.first.get(),
                          op.a.data.raw(), problem.second.get(), &beta, d, problem.result.get(), d,
                          problem.result.get(), &algorithm, queue_.workspace(kWorkspaceBytes),
                          static_cast<std::size_t>(kWorkspaceBytes), queue_.stream());
  }

  bool usable(const Problem& problem, const cublasLtMatmulAlgo_t& algorithm) const {
    cublasLtMatmulHeuristicResult_t result{};
    return cublasLtMatmulAlgoCheck(handle_, problem.description.get(), problem.first.get(),
                                   problem.second.get(), problem.result.get(), problem.result.get(),
                                   &algorithm, &result) == CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= static_cast<std::size_t>(kWorkspaceBytes);
  }

  std::vector<cublasLtMatmulHeuristicResult_t> candidates(const Matmul& op, const Problem& problem) const {
    cublasLtMatmulPreference_t raw = nullptr;
    check_cublas(cublasLtMatmulPreferenceCreate(&raw), "cublasLtMatmulPreferenceCreate");
    const Preference preference(raw);
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
      check_cublas(cublasLtMatmulPreferenceSetAttribute(preference.get(), attribute, &value, sizeof(value)),
                   "cublasLtMatmulPreferenceSetAttribute");
    };
    set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<std::uint64_t>(kWorkspaceBytes));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<std::uint32_t>(alignment(op.b.data)));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<std::uint32_t>(alignment(op.a.data)));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<std::uint32_t>(alignment(op.d)));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<std::uint32_t>(alignment(op.d)));
    if (queue_.determinism() == Determinism::deterministic) {
      // Parts of a split sum must not meet in the output in the order in which they happen to end.
      set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
          static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_MASK & ~CUBLASLT_REDUCTION_SCHEME_INPLACE));
    }
    std::vector<cublasLtMatmulHeuristicResult_t> found(kCandidates);
    int count = 0;
    const auto status = cublasLtMatmulAlgoGetHeuristic(
        handle_, problem.description.get(), problem.first.get(), problem.second.get(), problem.result.get(),
        problem.result.get(), preference.get(), kCandidates, found.data(), &count);
    found.resize(status == CUBLAS_STATUS_SUCCESS ? static_cast<std::size_t>(count) : 0);
    std::erase_if(found, [](const auto& result) { return result.state != CUBLAS_STATUS_SUCCESS; });
    return found;
  }

  /// Times the heuristic's candidates on the real factors, overwriting d, or where d is added to, memory of
  /// its own. On a deterministic queue the heuristic's own first choice.
  std::optional<cublasLtMatmulAlgo_t> choose(const Matmul& op, const Problem& problem) {
    const auto found = candidates(op, problem);
    if (found.empty()) {
      log_debug("cuBLASLt {} takes no matmul of {}x{}x{} with these strides{}; slower kernels run instead",
                cublasLtGetVersion(), op.m(), op.n(), op.k(), op.bias ? " and a bias" : "");
      return std::nullopt;
    }
    // Timings differ from run to run, and so would the bits.
    if (queue_.determinism() == Determinism::deterministic) return found.front().algo;
    std::byte* d = op.d.raw();
    std::unique_ptr<void, void (*)(void*)> scratch(nullptr, [](void* memory) { cudaFree(memory); });
    if (op.accumulate == Accumulate::yes) {
      const auto bytes = static_cast<std::size_t>(bytes_of(op.d.dtype(), op.m() * op.d.stride()));
      void* memory = nullptr;
      if (cudaMalloc(&memory, bytes) != cudaSuccess) {
        cudaGetLastError();
        return found.front().algo;  // no room to try; the heuristic's own first choice
      }
      scratch.reset(memory);
      check_cuda(cudaMemsetAsync(memory, 0, bytes, queue_.stream()), "cudaMemsetAsync");
      d = static_cast<std::byte*>(memory);
    }
    queue_.workspace(kWorkspaceBytes);
    const auto launch = [&](const cublasLtMatmulAlgo_t& algorithm, int times) {
      cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
      for (int i = 0; i < times && status == CUBLAS_STATUS_SUCCESS; ++i)
        status = launch_library(op, problem, algorithm, d, op.accumulate);
      return status == CUBLAS_STATUS_SUCCESS;
    };
    return fastest(found, launch);
  }

  template <class Launch>
  std::optional<cublasLtMatmulAlgo_t> fastest(std::span<const cublasLtMatmulHeuristicResult_t> found,
                                              const Launch& launch) const {
    Stopwatch watch(queue_.stream());
    const auto time = [&](const cublasLtMatmulAlgo_t& algorithm, int times) {
      bool good = true;
      const float ms = watch.milliseconds([&] { good = launch(algorithm, times); });
      return good ? ms / static_cast<float>(times) : std::numeric_limits<float>::infinity();
    };
    struct Contender {
      cublasLtMatmulAlgo_t algorithm;
      float alone_ms;
      int times(float ms) const { return static_cast<int>(std::ceil(ms / alone_ms)); }
    };
    std::vector<Contender> contenders;
    for (const auto& candidate : found) {
      if (!launch(candidate.algo, 1)) continue;  // loads the kernel
      contenders.push_back({candidate.algo, time(candidate.algo, 2)});
    }
    std::sort(contenders.begin(), contenders.end(),
              [](const Contender& a, const Contender& b) { return a.alone_ms < b.alone_ms; });
    if (contenders.empty() || std::isinf(contenders.front().alone_ms)) return std::nullopt;
    const Contender& first = contenders.front();
    if (first.alone_ms < kShortMs) return first.algorithm;
    launch(first.algorithm, first.times(kHeatMs));
    const Contender* best = nullptr;
    float best_ms = 0;
    for (const Contender& contender : std::span(contenders).first(std::min(kContenders, contenders.size()))) {
      if (contender.alone_ms > kHopeless * first.alone_ms) break;
      launch(contender.algorithm, contender.times(kSettleMs));
      const float ms = time(contender.algorithm, contender.times(kTimedMs));
      if (best != nullptr && ms >= best_ms) continue;
      best = &contender;
      best_ms = ms;
    }
    return best->algorithm;
  }

  CudaQueue& queue_;
  cublasLtHandle_t handle_ = nullptr;
  std::map<Key, Shape> shapes_;
  std::map<Key, cublasLtMatmulAlgo_t> choices_;
};

MatmulLibrary& library(CudaQueue& queue) {
  return library_of<MatmulLibrary>(queue, &CudaLibraries::matmul);
}

}  // namespace
}  // namespace cuda

// Bound by the matrix units from a few hundred rows on. At 8,192 rows of an 8B model's layers 620 to 810
// TFLOP/s on an H200, whose ceiling on random data is about 790.
void launch(CudaQueue& queue, const Matmul& op) {
  if (op.m() == 0 || op.n() == 0) return;
  if (op.k() == 0) return cuda::own_matmul(queue, op);  // zeros, the bias, or nothing added
  cuda::library(queue).run(op);
}

std::vector<std::string> matmul_choices(CudaQueue& queue) {
  return cuda::library(queue).choices();
}

void take_matmul_choices(CudaQueue& queue, const std::vector<std::string>& choices) {
  cuda::library(queue).take(choices);
}

}  // namespace verne
