// Attention graphs for cuDNN, by the cudnn-frontend headers, which only this file includes: they take a
// minute to compile.
#include "cuda/attention_cudnn.hpp"

#include <cudnn_frontend.h>

#include <algorithm>
#include <bit>
#include <map>
#include <memory>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cuda/attention_own.hpp"
#include "cuda/libraries.hpp"
#include "verne/base/checked.hpp"
#include "verne/base/log.hpp"
#include "verne/tensor/cuda_check.hpp"

namespace verne::cuda {
namespace {

namespace fe = cudnn_frontend;

/// What cuDNN's reproducible backward may take at once.
constexpr std::int64_t kDeterministicBytes = std::int64_t{5} << 29;

void check_cudnn(cudnnStatus_t status, std::string_view call) {
  if (status != CUDNN_STATUS_SUCCESS) {
    throw_system_error("cuDNN {}: {} failed: {}", cudnnGetVersion(), call, cudnnGetErrorString(status));
  }
}

/// Names of a graph's tensors; those that carry offsets have them at kOffsets + their own.
enum Uid : std::int64_t { kQ = 1, kK, kV, kOut, kStats, kDout, kDq, kDk, kDv, kLengths, kOffsets = 100 };

/// What a plan depends on. Two problems with equal shapes run the same plan.
struct Problem {
  bool packed;
  std::int64_t documents, length, tokens, heads, kv_heads, dim, window;
  std::int64_t row_heads;  ///< query heads of the log_sum_exp buffer; `heads` may be a part of them
  double scale;
  /// Row strides in the order of the tensors' names; 0 where the direction has no such tensor.
  std::vector<std::int64_t> strides;

  /// The family shares one answer to whether cuDNN takes it.
  std::vector<std::int64_t> family() const { return {packed, length, heads, kv_heads, dim, window}; }
  std::vector<std::int64_t> key() const {
    std::vector<std::int64_t> all = {
        packed,   documents, length, tokens,    heads,
        kv_heads, dim,       window, row_heads, std::bit_cast<std::int64_t>(scale)};
    all.insert(all.end(), strides.begin(), strides.end());
    return all;
  }
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

  template <class Operation>
  Problem problem(const Operation& op) const {
    const DocumentLayout& documents = op.documents;
    // Before 9.16 the backward needs a padding mask where the length is not a multiple of 128: documents then
    // count as packed.
    const bool padded = version_ < 91600 && documents.max_length % 128 != 0 && !documents.starts.empty();
    return {.packed = documents.kind == DocumentLayout::Kind::packed || padded,
            .documents = documents.count,
            .length = documents.max_length,
            .tokens = op.q.size(0),
            .heads = op.q.size(1),
            .kv_heads = op.k.size(1),
            .dim = op.q.size(2),
            .window = op.window < documents.max_length ? op.window : 0,
            .row_heads = op.q.size(1),
            .scale = op.scale,
            .strides = {}};
  }

  /// What is known without asking cuDNN.
  bool candidate(const Problem& problem, DType dtype) const {
    if (dtype != DType::bf16 || problem.dim % 8 != 0 || problem.length < 2 ||
        refused_.contains(problem.family()))
      return false;
    return major_ >= 9 ? problem.dim <= 256 : !problem.packed && problem.dim <= 128;
  }

  struct Plan {
    fe::graph::Graph graph;
    std::int64_t workspace_bytes = 0;
  };
  enum class Direction { forward, backward };

  /// A tensor of the operation. A gathered one is written without gaps and then copied to its strided place.
  enum class Written : bool { in_place, gathered };
  struct Place {
    std::int64_t uid;
    Tensor tensor;
    Written written = Written::in_place;
  };

  /// Runs the problem, in pieces where the workspace asks for it. Gathered outputs and the tables of packed
  /// documents precede cuDNN's own workspace. Taken::no: there is no plan, and nothing has run.
  Taken run(const Problem& whole, Direction direction, const Tensor& starts,
            const std::vector<Place>& places) {
    const auto [documents, kv_heads] = piece_of(whole, direction);
    const std::int64_t group = whole.heads / whole.kv_heads, rest = whole.documents % documents;
    Problem piece = whole;
    piece.kv_heads = kv_heads;
    piece.heads = kv_heads * group;
    piece.documents = documents;
    Plan* plan = plan_of(piece, direction);
    piece.documents = rest;
    Plan* rest_plan = rest > 0 ? plan_of(piece, direction) : plan;
    if (!plan || !rest_plan) return Taken::no;

    std::int64_t used = 0;
    const auto reserve = [&used](std::int64_t bytes) {
      return std::exchange(used, used + round_up<std::int64_t>(bytes, 256));
    };
    std::vector<std::int64_t> gathered_at;
    for (const Place& place : places) {
      gathered_at.push_back(place.written == Written::gathered ? reserve(place.tensor.bytes()) : 0);
    }
    std::vector<std::int64_t> strides;
    std::int64_t offsets_at = 0, lengths_at = 0;
    if (whole.packed) {
      strides = table_strides(whole);
      offsets_at = reserve(std::ssize(strides) * (whole.documents + 1) * 8);
      lengths_at = reserve(whole.documents * 4);
    }
    std::byte* memory = queue_.workspace(used + std::max(plan->workspace_bytes, rest_plan->workspace_bytes));
    const Tensor offsets(memory + offsets_at, DType::i64, Shape{std::ssize(strides), whole.documents + 1});
    const Tensor lengths(memory + lengths_at, DType::i32, Shape{whole.documents});
    if (whole.packed) fill_document_tables(queue_, starts, strides, offsets, lengths);
    queue_.use_device();

    for (std::int64_t document = 0; document < whole.documents; document += documents) {
      for (std::int64_t kv_head = 0; kv_head < whole.kv_heads; kv_head += kv_heads) {
        std::unordered_map<std::int64_t, void*> pointers;
        for (std::size_t i = 0; i < places.size(); ++i) {
          const auto& [uid, tensor, written] = places[i];
          std::byte* base = written == Written::gathered ? memory + gathered_at[i] : tensor.raw();
          pointers[uid] =
              base + bytes_of(tensor.dtype(), first_element(whole, uid, document, kv_head, group));
        }
        if (whole.packed) {
          for (std::size_t i = 0; i < strides.size(); ++i) {
            pointers[kOffsets + strides[i]] =
                offsets.rows(static_cast<std::int64_t>(i), 1).raw() + 8 * document;
          }
          pointers[kLengths] = lengths.raw() + 4 * document;
        }
        Plan& now = document + documents <= whole.documents ? *plan : *rest_plan;
        auto status = now.graph.execute(handle_, pointers, memory + used);
        if (status.is_bad())
          throw_system_error("cuDNN {}: attention failed: {}", version_, status.get_message());
      }
    }
    for (std::size_t i = 0; i < places.size(); ++i) {
      if (places[i].written == Written::gathered) scatter(places[i].tensor, memory + gathered_at[i]);
    }
    return Taken::yes;
  }

 private:
  using TensorPointer = std::shared_ptr<fe::graph::Tensor_attributes>;
  using Plans = std::map<std::vector<std::int64_t>, std::unique_ptr<Plan>>;

  /// Null where cuDNN has none.
  Plan* plan_of(const Problem& problem, Direction direction) {
    auto& plans = direction == Direction::forward ? forward_ : backward_;
    const auto key = problem.key();
    auto found = plans.find(key);
    if (found == plans.end()) found = plans.emplace(key, make_plan(problem, direction)).first;
    return found->second.get();
  }

  /// Documents and key/value heads that one call of cuDNN works on. Its reproducible backward keeps a matrix
  /// of length × length bf16 for each document and query head, also for documents that are short or empty.
  std::pair<std::int64_t, std::int64_t> piece_of(const Problem& problem, Direction direction) const {
    if (direction == Direction::forward || queue_.determinism() == Determinism::fast) {
      return {problem.documents, problem.kv_heads};
    }
    const std::int64_t side = round_up<std::int64_t>(problem.length, 64);
    const std::int64_t kv_head_bytes = side * side * 2 * (problem.heads / problem.kv_heads);
    const std::int64_t fitting = std::max<std::int64_t>(1, kDeterministicBytes / kv_head_bytes);
    if (fitting >= problem.kv_heads)
      return {std::min(problem.documents, fitting / problem.kv_heads), problem.kv_heads};
    std::int64_t kv_heads = fitting;
    while (problem.kv_heads % kv_heads != 0) --kv_heads;
    return {1, kv_heads};
  }

  /// Where a piece begins in a tensor. Packed documents begin where the tables say.
  static std::int64_t first_element(const Problem& problem, std::int64_t uid, std::int64_t document,
                                    std::int64_t kv_head, std::int64_t group) {
    const std::int64_t token = problem.packed ? 0 : document * problem.length;
    if (uid == kStats) {
      return problem.packed
                 ? kv_head * group
                 : document * problem.row_heads * problem.length + kv_head * group * problem.length;
    }
    const bool kv = uid == kK || uid == kV || uid == kDk || uid == kDv;
    return token * problem.strides[static_cast<std::size_t>(uid - kQ)] +
           (kv ? kv_head : kv_head * group) * problem.dim;
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

  /// The distinct factors from a document's start to its offset in a tensor: row strides, and heads for the
  /// statistics.
  static std::vector<std::int64_t> table_strides(const Problem& problem) {
    std::set<std::int64_t> distinct(problem.strides.begin(), problem.strides.end());
    distinct.insert(problem.row_heads);
    distinct.erase(0);
    return {distinct.begin(), distinct.end()};
  }

  std::unique_ptr<Plan> make_plan(const Problem& problem, Direction direction) {
    auto plan = std::make_unique<Plan>();
    plan->graph.set_io_data_type(fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
    queue_.use_device();
    if (direction == Direction::forward) {
      describe_forward(plan->graph, problem);
    } else {
      describe_backward(plan->graph, problem);
    }
    auto status = plan->graph.build(handle_, {fe::HeurMode_t::A});
    if (status.is_bad()) {
      log_warning(
          "cuDNN {} takes no {} attention of {} documents of at most {} tokens, {}/{} heads of {}, window "
          "{}: {}; "
          "a slower kernel runs instead",
          version_, direction == Direction::forward ? "forward" : "backward",
          problem.packed ? "packed" : "equal", problem.length, problem.heads, problem.kv_heads, problem.dim,
          problem.window, status.get_message());
      if (direction == Direction::forward) refused_.insert(problem.family());
      return nullptr;
    }
    plan->workspace_bytes = plan->graph.get_workspace_size();
    log_debug(
        "cuDNN {} attention plan: {} of {} documents of at most {} tokens, {} heads of {}: {} bytes of "
        "workspace",
        version_, direction == Direction::forward ? "forward" : "backward", problem.documents, problem.length,
        problem.heads, problem.dim, plan->workspace_bytes);
    return plan;
  }

  /// Offsets of packed documents, one tensor for each distinct stride.
  using Offsets = std::map<std::int64_t, TensorPointer>;
  static Offsets describe_offsets(fe::graph::Graph& graph, const Problem& problem) {
    Offsets offsets;
    if (!problem.packed) return offsets;
    for (const std::int64_t stride : table_strides(problem)) {
      offsets[stride] = graph.tensor(fe::graph::Tensor_attributes()
                                         .set_uid(kOffsets + stride)
                                         .set_dim({problem.documents + 1, 1, 1, 1})
                                         .set_stride({1, 1, 1, 1})
                                         .set_data_type(fe::DataType_t::INT64));
    }
    return offsets;
  }

  /// A tensor [documents, heads, length, dim] over token rows of the given stride.
  static fe::graph::Tensor_attributes attributes(const Problem& problem, std::int64_t uid, std::int64_t heads,
                                                 const Offsets& offsets) {
    const std::int64_t stride = problem.strides[static_cast<std::size_t>(uid - kQ)];
    auto tensor = fe::graph::Tensor_attributes()
                      .set_uid(uid)
                      .set_dim({problem.documents, heads, problem.length, problem.dim})
                      .set_stride({problem.length * stride, problem.dim, stride, 1})
                      .set_data_type(fe::DataType_t::BFLOAT16);
    if (problem.packed) tensor.set_ragged_offset(offsets.at(stride));
    return tensor;
  }
  /// log_sum_exp: [documents, heads, length] where documents are equal, [tokens, heads] where they are
  /// packed.
  static fe::graph::Tensor_attributes statistics(const Problem& problem, const Offsets& offsets) {
    auto tensor = fe::graph::Tensor_attributes()
                      .set_uid(kStats)
                      .set_dim({problem.documents, problem.heads, problem.length, 1})
                      .set_data_type(fe::DataType_t::FLOAT);
    const std::int64_t heads = problem.row_heads, length = problem.length;
    if (problem.packed) {
      tensor.set_stride({heads * length, 1, heads, 1}).set_ragged_offset(offsets.at(heads));
    } else {
      tensor.set_stride({heads * length, length, 1, 1});
    }
    return tensor;
  }
  /// Gives an output the layout that `like` describes.
  static void place(const TensorPointer& output, fe::graph::Tensor_attributes like) {
    output->set_output(true)
        .set_uid(like.get_uid())
        .set_dim(like.get_dim())
        .set_stride(like.get_stride())
        .set_data_type(like.get_data_type());
    if (like.get_ragged_offset()) output->set_ragged_offset(like.get_ragged_offset());
  }

  template <class Attributes>
  static void describe_mask(fe::graph::Graph& graph, Attributes& sdpa, const Problem& problem) {
    sdpa.set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT).set_diagonal_band_right_bound(0);
    if (problem.window > 0) sdpa.set_diagonal_band_left_bound(static_cast<int>(problem.window));
    if (!problem.packed) return;
    const auto lengths = graph.tensor(fe::graph::Tensor_attributes()
                                          .set_uid(kLengths)
                                          .set_dim({problem.documents, 1, 1, 1})
                                          .set_stride({1, 1, 1, 1})
                                          .set_data_type(fe::DataType_t::INT32));
    sdpa.set_padding_mask(true).set_seq_len_q(lengths).set_seq_len_kv(lengths);
  }

  static void describe_forward(fe::graph::Graph& graph, const Problem& problem) {
    const Offsets offsets = describe_offsets(graph, problem);
    auto sdpa = fe::graph::SDPA_attributes().set_name("attention").set_generate_stats(true);
    sdpa.set_attn_scale(static_cast<float>(problem.scale));
    describe_mask(graph, sdpa, problem);
    const auto [out, stats] =
        graph.sdpa(graph.tensor(attributes(problem, kQ, problem.heads, offsets)),
                   graph.tensor(attributes(problem, kK, problem.kv_heads, offsets)),
                   graph.tensor(attributes(problem, kV, problem.kv_heads, offsets)), sdpa);
    place(out, attributes(problem, kOut, problem.heads, offsets));
    place(stats, statistics(problem, offsets));
  }

  void describe_backward(fe::graph::Graph& graph, const Problem& problem) const {
    const Offsets offsets = describe_offsets(graph, problem);
    auto sdpa = fe::graph::SDPA_backward_attributes().set_name("attention_backward");
    sdpa.set_attn_scale(static_cast<float>(problem.scale));
    sdpa.set_deterministic_algorithm(queue_.determinism() == Determinism::deterministic);
    // Bounds the workspace by the tokens that there are instead of documents · length.
    if (problem.packed && problem.dim % 16 == 0) {
      sdpa.set_max_total_seq_len_q(problem.tokens).set_max_total_seq_len_kv(problem.tokens);
    }
    describe_mask(graph, sdpa, problem);
    const auto tensor = [&](std::int64_t uid, std::int64_t heads) {
      return graph.tensor(attributes(problem, uid, heads, offsets));
    };
    const auto [dq, dk, dv] =
        graph.sdpa_backward(tensor(kQ, problem.heads), tensor(kK, problem.kv_heads),
                            tensor(kV, problem.kv_heads), tensor(kOut, problem.heads),
                            tensor(kDout, problem.heads), graph.tensor(statistics(problem, offsets)), sdpa);
    place(dq, attributes(problem, kDq, problem.heads, offsets));
    place(dk, attributes(problem, kDk, problem.kv_heads, offsets));
    place(dv, attributes(problem, kDv, problem.kv_heads, offsets));
  }

  CudaQueue& queue_;
  std::int64_t version_;
  int major_ = 0;
  cudnnHandle_t handle_ = nullptr;
  Plans forward_, backward_;
  std::set<std::vector<std::int64_t>> refused_;  // families whose forward cuDNN does not take
};

AttentionLibrary& library(CudaQueue& queue) {
  return library_of<AttentionLibrary>(queue, &CudaLibraries::attention);
}

}  // namespace

Taken cudnn_attention_forward(CudaQueue& queue, const AttentionForward& op) {
  if (op.q.dtype() != DType::bf16) return Taken::no;
  AttentionLibrary& cudnn = library(queue);
  Problem problem = cudnn.problem(op);
  if (!cudnn.candidate(problem, op.q.dtype())) return Taken::no;
  problem.strides = {op.q.stride(), op.k.stride(), op.v.stride(), op.out.stride()};
  return cudnn.run(problem, AttentionLibrary::Direction::forward, op.documents.starts,
                   {{kQ, op.q}, {kK, op.k}, {kV, op.v}, {kOut, op.out}, {kStats, op.log_sum_exp}});
}

Taken cudnn_forward_taken(CudaQueue& queue, const AttentionBackward& op) {
  if (op.q.dtype() != DType::bf16) return Taken::no;
  AttentionLibrary& cudnn = library(queue);
  return cudnn.candidate(cudnn.problem(op), op.q.dtype()) ? Taken::yes : Taken::no;
}

Taken cudnn_attention_backward(CudaQueue& queue, const AttentionBackward& op) {
  if (cudnn_forward_taken(queue, op) == Taken::no) return Taken::no;
  AttentionLibrary& cudnn = library(queue);
  Problem problem = cudnn.problem(op);
  problem.strides = {op.q.stride(),    op.k.stride(),  op.v.stride(),  op.out.stride(), 0,
                     op.dout.stride(), op.dq.stride(), op.dk.stride(), op.dv.stride()};
  // With packed documents and grouped queries the workspace holds dk and dv of every query head, at dk's row
  // stride times the group: slices of a wide buffer would blow it up.
  using Written = AttentionLibrary::Written;
  const auto place = [&](std::int64_t uid, const Tensor& to) -> AttentionLibrary::Place {
    const std::int64_t width = problem.kv_heads * problem.dim;
    if (!problem.packed || problem.heads == problem.kv_heads || to.stride() == width) return {uid, to};
    problem.strides[static_cast<std::size_t>(uid - kQ)] = width;
    return {uid, to, Written::gathered};
  };
  const std::vector<AttentionLibrary::Place> places = {
      {kQ, op.q},       {kK, op.k},   {kV, op.v},        {kOut, op.out},   {kStats, op.log_sum_exp},
      {kDout, op.dout}, {kDq, op.dq}, place(kDk, op.dk), place(kDv, op.dv)};
  return cudnn.run(problem, AttentionLibrary::Direction::backward, op.documents.starts, places);
}

}  // namespace verne::cuda
