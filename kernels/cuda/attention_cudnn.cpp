#include "cuda/attention_cudnn.hpp"

#include <cuda_runtime_api.h>
#include <cudnn.h>

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "cuda/attention_plan.hpp"
#include "cuda/libraries.hpp"
#include "verne/base/checked.hpp"
#include "verne/base/log.hpp"
#include "verne/tensor/cuda_check.hpp"

namespace verne::cuda {
namespace {

using Direction = AttentionProblem::Direction;
using Documents = AttentionProblem::Documents;
using Tokens = AttentionProblem::Tokens;

/// Documents are not sorted by length below this.
constexpr std::int64_t kShortDocument = 128;

void check_cudnn(cudnnStatus_t status, std::string_view call) {
  if (status != CUDNN_STATUS_SUCCESS) {
    throw_system_error("cuDNN {}: {} failed: {}", cudnnGetVersion(), call, cudnnGetErrorString(status));
  }
}

/// A tensor of the operation. A gathered one is written without gaps and then copied to its strided place.
enum class Written : bool { in_place, gathered };
struct Place {
  std::int64_t uid;
  Tensor tensor;
  Written written = Written::in_place;
};

class AttentionLibrary final : public CudaLibrary {
 public:
  explicit AttentionLibrary(CudaQueue& queue)
      : queue_(queue), version_(static_cast<std::int64_t>(cudnnGetVersion())) {
    check_cudnn(cudnnCreate(&handle_), "cudnnCreate");
    check_cudnn(cudnnSetStream(handle_, queue.stream()), "cudnnSetStream");
    check_cuda(cudaDeviceGetAttribute(&major_, cudaDevAttrComputeCapabilityMajor, queue.device()),
               "cudaDeviceGetAttribute");
  }
  ~AttentionLibrary() override { cudnnDestroy(handle_); }
  AttentionLibrary(const AttentionLibrary&) = delete;
  AttentionLibrary& operator=(const AttentionLibrary&) = delete;

  /// Without strides, which the caller adds. Of a document's keys those count that the window leaves visible
  /// to its queries: at most queries + window − 1, the last ones.
  template <class Operation>
  AttentionProblem problem(const Operation& op, Direction direction) const {
    const auto& [query, key] = op.layout;
    const std::int64_t query_tokens = op.q.size(0), key_tokens = op.k.size(0);
    const std::int64_t seen =
        op.window > 0 ? std::min(key.max_length, query.max_length + op.window - 1) : key.max_length;
    Documents documents = Documents::equal;
    if (query.kind == DocumentLayout::Kind::packed) {
      documents = Documents::ragged;
    } else if (direction == Direction::backward && version_ < 91600 && seen % 128 != 0) {
      documents = Documents::masked;  // the backward was wrong without a mask before 9.16
    }
    return {
        .direction = direction,
        .determinism = queue_.determinism(),
        .documents = documents,
        .tokens = is_self_attention(op.layout) && query_tokens == key_tokens ? Tokens::same : Tokens::apart,
        .count = query.count,
        .query_length = query.max_length,
        .key_length = seen,
        .key_pitch = key.pitch,
        .query_tokens = query_tokens,
        .key_tokens = key_tokens,
        .heads = op.q.size(1),
        .kv_heads = op.k.size(1),
        .dim = op.q.size(2),
        .value_dim = op.v.size(2),
        .window = op.window < key.max_length ? op.window : 0,
        .row_heads = op.q.size(1),
        .scale = op.scale,
        .strides = {}};
  }

  /// What is known without asking cuDNN.
  bool candidate(const AttentionProblem& problem) const {
    const std::int64_t dim = problem.dim, value_dim = problem.value_dim;
    if (dim % 8 != 0 || value_dim % 8 != 0 || problem.query_length < 2) return false;
    if (major_ < 9) return problem.documents != Documents::ragged && dim <= 128 && value_dim <= 128;
    return dim <= 256 && value_dim <= 256 && widths_agree(dim, value_dim);
  }

  /// Runs the problem, in pieces where the workspace asks for it. Gathered outputs and the tables of
  /// documents precede cuDNN's own workspace. Taken::no: there is no plan, and nothing has run.
  template <class Operation>
  Taken run(const AttentionProblem& whole, const Operation& op, const std::vector<Place>& places) {
    std::vector<Part> parts = parts_of(whole);
    std::int64_t workspace = 0;
    for (Part& part : parts) {
      if (!find_plans(part)) return Taken::no;
      workspace = std::max({workspace, part.plan->workspace_bytes(), part.rest_plan->workspace_bytes()});
    }
    const std::vector<OffsetTable> offsets =
        whole.documents == Documents::ragged ? whole.offset_tables() : std::vector<OffsetTable>{};
    std::int64_t used = 0;
    const auto reserve = [&used](std::int64_t bytes) {
      return std::exchange(used, used + round_up<std::int64_t>(bytes, 256));
    };
    std::vector<std::int64_t> places_at, parts_at;
    for (const Place& place : places)
      places_at.push_back(place.written == Written::gathered ? reserve(place.tensor.bytes()) : 0);
    for (const Part& part : parts)
      parts_at.push_back(reserve(table_bytes(part.problem, std::ssize(offsets))));
    std::byte* memory = queue_.workspace(used + workspace);

    std::vector<std::byte*> tensors;
    for (std::size_t i = 0; i < places.size(); ++i) {
      const bool gathered = places[i].written == Written::gathered;
      tensors.push_back(gathered ? memory + places_at[i] : places[i].tensor.raw());
    }
    const std::int64_t hidden_keys =
        whole.documents == Documents::ragged ? 0 : op.layout.key.max_length - whole.key_length;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const DocumentTables tables = tables_at(memory + parts_at[i], parts[i], std::ssize(offsets));
      if (whole.documents != Documents::equal)
        fill_document_tables(queue_, op.layout, op.window, offsets, tables);
      queue_.use_device();
      execute(parts[i], tables, places, tensors, hidden_keys, memory + used);
    }
    for (std::size_t i = 0; i < places.size(); ++i) {
      if (places[i].written == Written::gathered) scatter(places[i].tensor, tensors[i]);
    }
    return Taken::yes;
  }

 private:
  /// Documents that run through the same plans, `documents` of them and `kv_heads` key/value heads at a time.
  struct Part {
    AttentionProblem problem;
    std::int64_t longer_than = -1;  ///< its documents have more queries, those of later parts have not
    std::int64_t documents = 0, kv_heads = 0;
    AttentionPlan* plan = nullptr;
    AttentionPlan* rest_plan = nullptr;  ///< for the documents that are left over
  };

  /// Pairs of head sizes that cuDNN's backward computes right, which its forward must keep to as well.
  /// Source: Transformer Engine's selection for Hopper.
  bool widths_agree(std::int64_t dim, std::int64_t value_dim) const {
    if (dim == value_dim || version_ < 91100 || (dim == 192 && value_dim == 128)) return true;
    if (version_ < 91300 && dim > 128 && dim <= 192 && value_dim > 64 && value_dim <= 128) return false;
    return dim < 128 || value_dim < 128;
  }

  /// Bytes of the length × length matrix of bf16 that the reproducible backward keeps for each document and
  /// query head, also for documents that are short or empty; of the query heads of one key/value head.
  static std::int64_t matrix_bytes(const AttentionProblem& problem) {
    return round_up<std::int64_t>(problem.query_length, 64) * round_up<std::int64_t>(problem.key_length, 64) *
           2 * (problem.heads / problem.kv_heads);
  }
  static bool keeps_matrices(const AttentionProblem& problem) {
    return problem.direction == Direction::backward && problem.determinism == Determinism::deterministic;
  }

  /// Where ragged documents would need more matrices than fit at once, they are sorted by length, in halves,
  /// quarters …: long ones are few, since so many tokens there are not, and short ones have small matrices.
  static std::vector<Part> parts_of(const AttentionProblem& whole) {
    std::vector<Part> parts;
    AttentionProblem rest = whole;
    while (keeps_matrices(whole) && whole.documents == Documents::ragged &&
           rest.count * rest.kv_heads * matrix_bytes(rest) > kScoreMatrixBytes) {
      const std::int64_t half = rest.query_length / 2;
      const std::int64_t long_ones = std::min(whole.count, whole.query_tokens / (half + 1));
      if (half < kShortDocument || long_ones >= rest.count) break;
      if (long_ones > 0) {
        parts.push_back({.problem = rest, .longer_than = half});
        parts.back().problem.count = long_ones;
      }
      rest.query_length = half;
      if (whole.tokens == Tokens::same) rest.key_length = half;
    }
    parts.push_back({.problem = rest, .longer_than = parts.empty() ? -1 : 0});
    for (Part& part : parts) std::tie(part.documents, part.kv_heads) = piece_of(part.problem);
    return parts;
  }

  /// Documents and key/value heads that one call of cuDNN works on.
  static std::pair<std::int64_t, std::int64_t> piece_of(const AttentionProblem& problem) {
    if (!keeps_matrices(problem)) return {problem.count, problem.kv_heads};
    const std::int64_t fitting = std::max<std::int64_t>(1, kScoreMatrixBytes / matrix_bytes(problem));
    if (fitting >= problem.kv_heads)
      return {std::min(problem.count, fitting / problem.kv_heads), problem.kv_heads};
    std::int64_t kv_heads = fitting;
    while (problem.kv_heads % kv_heads != 0) --kv_heads;
    return {1, kv_heads};
  }

  /// Whether cuDNN has the part's plans.
  bool find_plans(Part& part) {
    AttentionProblem piece = part.problem;
    piece.kv_heads = part.kv_heads;
    piece.heads = part.kv_heads * (part.problem.heads / part.problem.kv_heads);
    piece.count = part.documents;
    part.plan = part.rest_plan = plan_of(piece);
    piece.count = part.problem.count % part.documents;
    if (part.plan && piece.count > 0) part.rest_plan = plan_of(piece);
    return part.plan && part.rest_plan;
  }

  /// Null where cuDNN has none.
  AttentionPlan* plan_of(const AttentionProblem& problem) {
    std::vector<std::int64_t> key = problem.key();
    const auto found = plans_.find(key);
    if (found != plans_.end()) return found->second.get();
    queue_.use_device();
    std::string refusal;
    std::unique_ptr<AttentionPlan> plan = make_attention_plan(handle_, problem, refusal);
    const std::string text = fmt::format(
        "{} attention of {} {} documents of at most {} queries and {} keys, {}/{} heads of {} and {}, "
        "window {}",
        problem.direction == Direction::forward ? "forward" : "backward", problem.count,
        problem.documents == Documents::ragged ? "packed" : "equal", problem.query_length, problem.key_length,
        problem.heads, problem.kv_heads, problem.dim, problem.value_dim, problem.window);
    if (plan) {
      log_debug("cuDNN {}: {}: {} bytes of workspace", version_, text, plan->workspace_bytes());
    } else {
      log_warning("cuDNN {} takes no {}: {}; a slower kernel runs instead", version_, text, refusal);
    }
    return plans_.emplace(std::move(key), std::move(plan)).first->second.get();
  }

  static std::int64_t table_bytes(const AttentionProblem& problem, std::int64_t offset_tables) {
    if (problem.documents == Documents::equal) return 0;
    return offset_tables * (problem.count + 1) * 8 + 2 * problem.count * 4;
  }
  static DocumentTables tables_at(std::byte* memory, const Part& part, std::int64_t offset_tables) {
    const std::int64_t count = part.problem.count;
    std::byte* lengths = memory + offset_tables * (count + 1) * 8;
    return {.longer_than = part.longer_than,
            .longest = part.problem.query_length,
            .offsets = Tensor(memory, DType::i64, Shape{offset_tables, count + 1}),
            .queries = Tensor(lengths, DType::i32, Shape{count}),
            .keys = Tensor(lengths + count * 4, DType::i32, Shape{count})};
  }

  /// Calls cuDNN for each piece of the part.
  void execute(const Part& part, const DocumentTables& tables, const std::vector<Place>& places,
               const std::vector<std::byte*>& tensors, std::int64_t hidden_keys, std::byte* workspace) {
    const AttentionProblem& problem = part.problem;
    for (std::int64_t document = 0; document < problem.count; document += part.documents) {
      for (std::int64_t kv_head = 0; kv_head < problem.kv_heads; kv_head += part.kv_heads) {
        std::unordered_map<std::int64_t, void*> pointers;
        for (std::size_t i = 0; i < places.size(); ++i) {
          const std::int64_t element = first_element(problem, places[i].uid, document, kv_head, hidden_keys);
          pointers[places[i].uid] = tensors[i] + bytes_of(places[i].tensor.dtype(), element);
        }
        if (problem.documents != Documents::equal) {
          pointers[kQueries] = tables.queries.raw() + 4 * document;
          if (problem.tokens == Tokens::apart) pointers[kKeys] = tables.keys.raw() + 4 * document;
          for (std::int64_t i = 0; i < tables.offsets.size(0); ++i)
            pointers[kOffsets + i] = tables.offsets.rows(i, 1).raw() + 8 * document;
        }
        const bool whole_piece = document + part.documents <= problem.count;
        (whole_piece ? part.plan : part.rest_plan)->execute(handle_, pointers, workspace);
      }
    }
  }

  /// Where a piece begins in a tensor. Ragged documents begin where the tables say.
  static std::int64_t first_element(const AttentionProblem& problem, std::int64_t uid, std::int64_t document,
                                    std::int64_t kv_head, std::int64_t hidden_keys) {
    const bool ragged = problem.documents == Documents::ragged;
    const std::int64_t head = kv_head * (problem.heads / problem.kv_heads);
    if (uid == kStats) return ragged ? head : (document * problem.row_heads + head) * problem.query_length;
    const bool of_keys = AttentionProblem::of_keys(uid);
    std::int64_t token = 0;
    if (!ragged)
      token = of_keys ? document * problem.key_pitch + hidden_keys : document * problem.query_length;
    return token * problem.stride(uid) + (of_keys ? kv_head : head) * problem.width(uid);
  }

  void scatter(const Tensor& to, const std::byte* from) const {
    const std::int64_t width = to.count() / to.size(0);
    const auto bytes = [&](std::int64_t elements) {
      return static_cast<std::size_t>(bytes_of(to.dtype(), elements));
    };
    check_cuda(
        cudaMemcpy2DAsync(to.raw(), bytes(to.stride()), from, bytes(width), bytes(width),
                          static_cast<std::size_t>(to.size(0)), cudaMemcpyDeviceToDevice, queue_.stream()),
        "cudaMemcpy2DAsync");
  }

  CudaQueue& queue_;
  std::int64_t version_;
  int major_ = 0;
  cudnnHandle_t handle_ = nullptr;
  std::map<std::vector<std::int64_t>, std::unique_ptr<AttentionPlan>> plans_;
};

AttentionLibrary& library(CudaQueue& queue) {
  return library_of<AttentionLibrary>(queue, &CudaLibraries::attention);
}

/// cuDNN moves 16 bytes at once.
bool aligned(const std::vector<Place>& places) {
  return std::all_of(places.begin(), places.end(), [](const Place& place) {
    return place.uid == kStats || (reinterpret_cast<std::uintptr_t>(place.tensor.raw()) % 16 == 0 &&
                                   bytes_of(place.tensor.dtype(), place.tensor.stride()) % 16 == 0);
  });
}

}  // namespace

Taken cudnn_attention_forward(CudaQueue& queue, const AttentionForward& op) {
  const std::vector<Place> places = {
      {kQ, op.q}, {kK, op.k}, {kV, op.v}, {kOut, op.out}, {kStats, op.log_sum_exp}};
  if (op.q.dtype() != DType::bf16 || !aligned(places)) return Taken::no;
  AttentionLibrary& cudnn = library(queue);
  AttentionProblem problem = cudnn.problem(op, Direction::forward);
  if (!cudnn.candidate(problem)) return Taken::no;
  problem.strides = {op.q.stride(), op.k.stride(), op.v.stride(), op.out.stride()};
  return cudnn.run(problem, op, places);
}

Taken cudnn_attention_backward(CudaQueue& queue, const AttentionBackward& op) {
  std::vector<Place> places = {
      {kQ, op.q},       {kK, op.k},   {kV, op.v},   {kOut, op.out}, {kStats, op.log_sum_exp},
      {kDout, op.dout}, {kDq, op.dq}, {kDk, op.dk}, {kDv, op.dv}};
  if (op.q.dtype() != DType::bf16 || !aligned(places)) return Taken::no;
  AttentionLibrary& cudnn = library(queue);
  AttentionProblem problem = cudnn.problem(op, Direction::backward);
  if (!cudnn.candidate(problem)) return Taken::no;
  problem.strides = {op.q.stride(),    op.k.stride(),  op.v.stride(),  op.out.stride(), 0,
                     op.dout.stride(), op.dq.stride(), op.dk.stride(), op.dv.stride()};
  // With ragged documents and grouped queries the workspace holds dk and dv of every query head, at their row
  // stride times the group: slices of a wide buffer would blow it up.
  for (Place& place : places) {
    if (place.uid != kDk && place.uid != kDv) continue;
    const std::int64_t width = problem.kv_heads * problem.width(place.uid);
    if (problem.documents != Documents::ragged || problem.heads == problem.kv_heads ||
        place.tensor.stride() == width)
      continue;
    problem.strides[static_cast<std::size_t>(place.uid - kQ)] = width;
    place.written = Written::gathered;
  }
  const Taken taken = cudnn.run(problem, op, places);
  // cuDNN writes the keys of the documents' queries alone.
  if (taken == Taken::yes && problem.tokens == Tokens::apart)
    zero_unseen_keys(queue, op.layout, op.window, op.dk, op.dv);
  return taken;
}

}  // namespace verne::cuda
