// Attention graphs for cuDNN, by the cudnn-frontend headers, which only this file includes: they take a
// minute to compile.
#include "cuda/attention_plan.hpp"

#include <cudnn_frontend.h>

#include <bit>
#include <map>
#include <set>

namespace verne::cuda {
namespace {

namespace fe = cudnn_frontend;
using TensorPointer = std::shared_ptr<fe::graph::Tensor_attributes>;

class FrontendPlan final : public AttentionPlan {
 public:
  /// Empty where the graph was built, else why not.
  std::string build(cudnnContext* handle, const AttentionProblem& problem);
  std::int64_t workspace_bytes() const override { return workspace_bytes_; }
  void execute(cudnnContext* handle, std::unordered_map<std::int64_t, void*>& pointers,
               std::byte* workspace) override {
    auto status = graph_.execute(handle, pointers, workspace);
    if (status.is_bad())
      throw_system_error("cuDNN {}: attention failed: {}", cudnnGetVersion(), status.get_message());
  }

 private:
  fe::graph::Graph graph_;
  std::int64_t workspace_bytes_ = 0;
};

/// A graph in the making.
class Description {
 public:
  Description(fe::graph::Graph& graph, const AttentionProblem& problem) : graph_(graph), problem_(problem) {
    if (problem.documents == AttentionProblem::Documents::equal) return;
    queries_ = table(kQueries, problem.count, fe::DataType_t::INT32);
    keys_ = problem.tokens == AttentionProblem::Tokens::same
                ? queries_
                : table(kKeys, problem.count, fe::DataType_t::INT32);
    if (!ragged()) return;
    std::int64_t uid = kOffsets;
    for (const OffsetTable& offsets : problem.offset_tables())
      offsets_[offsets] = table(uid++, problem.count + 1, fe::DataType_t::INT64);
  }

  void forward() {
    auto sdpa = fe::graph::SDPA_attributes().set_name("attention").set_generate_stats(true);
    describe_mask(sdpa);
    const auto [out, stats] = graph_.sdpa(input(kQ), input(kK), input(kV), sdpa);
    place(out, attributes(kOut));
    place(stats, statistics());
  }

  void backward() {
    auto sdpa = fe::graph::SDPA_backward_attributes().set_name("attention_backward");
    sdpa.set_deterministic_algorithm(problem_.determinism == Determinism::deterministic);
    // Bounds the workspace by the tokens that there are instead of documents · length.
    if (ragged() && problem_.dim % 16 == 0 && problem_.value_dim % 16 == 0) {
      sdpa.set_max_total_seq_len_q(problem_.query_tokens).set_max_total_seq_len_kv(problem_.key_tokens);
    }
    describe_mask(sdpa);
    const auto [dq, dk, dv] = graph_.sdpa_backward(input(kQ), input(kK), input(kV), input(kOut), input(kDout),
                                                   graph_.tensor(statistics()), sdpa);
    place(dq, attributes(kDq));
    place(dk, attributes(kDk));
    place(dv, attributes(kDv));
  }

 private:
  bool ragged() const { return problem_.documents == AttentionProblem::Documents::ragged; }

  TensorPointer table(std::int64_t uid, std::int64_t count, fe::DataType_t type) {
    return graph_.tensor(fe::graph::Tensor_attributes()
                             .set_uid(uid)
                             .set_dim({count, 1, 1, 1})
                             .set_stride({1, 1, 1, 1})
                             .set_data_type(type));
  }

  /// [documents, heads, length, width] over token rows.
  fe::graph::Tensor_attributes attributes(std::int64_t uid) const {
    const AttentionProblem& p = problem_;
    const bool of_keys = AttentionProblem::of_keys(uid);
    const std::int64_t stride = p.stride(uid), width = p.width(uid);
    const std::int64_t length = of_keys ? p.key_length : p.query_length;
    const std::int64_t pitch = of_keys && !ragged() ? p.key_pitch : length;
    auto tensor = fe::graph::Tensor_attributes()
                      .set_uid(uid)
                      .set_dim({p.count, of_keys ? p.kv_heads : p.heads, length, width})
                      .set_stride({pitch * stride, width, stride, 1})
                      .set_data_type(fe::DataType_t::BFLOAT16);
    if (ragged()) tensor.set_ragged_offset(offsets_.at(p.offset_table(uid)));
    return tensor;
  }
  TensorPointer input(std::int64_t uid) { return graph_.tensor(attributes(uid)); }

  /// log_sum_exp: [documents, heads, length] where documents are equal, [tokens, heads] where they are
  /// ragged.
  fe::graph::Tensor_attributes statistics() const {
    const std::int64_t heads = problem_.row_heads, length = problem_.query_length;
    auto tensor = fe::graph::Tensor_attributes()
                      .set_uid(kStats)
                      .set_dim({problem_.count, problem_.heads, length, 1})
                      .set_data_type(fe::DataType_t::FLOAT);
    if (ragged()) {
      tensor.set_stride({heads * length, 1, heads, 1})
          .set_ragged_offset(offsets_.at(problem_.offset_table(kStats)));
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
  void describe_mask(Attributes& sdpa) const {
    sdpa.set_attn_scale(static_cast<float>(problem_.scale));
    const bool equal_lengths = problem_.tokens == AttentionProblem::Tokens::same ||
                               (!ragged() && problem_.query_length == problem_.key_length);
    sdpa.set_diagonal_alignment(equal_lengths ? fe::DiagonalAlignment_t::TOP_LEFT
                                              : fe::DiagonalAlignment_t::BOTTOM_RIGHT)
        .set_diagonal_band_right_bound(0);
    if (problem_.window > 0) sdpa.set_diagonal_band_left_bound(static_cast<int>(problem_.window));
    if (queries_) sdpa.set_padding_mask(true).set_seq_len_q(queries_).set_seq_len_kv(keys_);
  }

  fe::graph::Graph& graph_;
  const AttentionProblem& problem_;
  TensorPointer queries_, keys_;  // lengths
  std::map<OffsetTable, TensorPointer> offsets_;
};

std::string FrontendPlan::build(cudnnContext* handle, const AttentionProblem& problem) {
  graph_.set_io_data_type(fe::DataType_t::BFLOAT16)
      .set_intermediate_data_type(fe::DataType_t::FLOAT)
      .set_compute_data_type(fe::DataType_t::FLOAT);
  Description description(graph_, problem);
  if (problem.direction == AttentionProblem::Direction::forward) {
    description.forward();
  } else {
    description.backward();
  }
  auto status = graph_.build(handle, {fe::HeurMode_t::A});
  if (status.is_bad()) return status.get_message().empty() ? "no reason given" : status.get_message();
  workspace_bytes_ = graph_.get_workspace_size();
  return {};
}

}  // namespace

OffsetTable AttentionProblem::offset_table(std::int64_t uid) const {
  const bool key = of_keys(uid) && tokens == Tokens::apart;
  return {key ? Side::key : Side::query, uid == kStats ? row_heads : stride(uid)};
}

std::vector<OffsetTable> AttentionProblem::offset_tables() const {
  std::set<OffsetTable> distinct{offset_table(kStats)};
  for (std::int64_t uid = kQ; uid < kQ + std::ssize(strides); ++uid) {
    if (stride(uid) != 0) distinct.insert(offset_table(uid));
  }
  return {distinct.begin(), distinct.end()};
}

std::vector<std::int64_t> AttentionProblem::key() const {
  std::vector<std::int64_t> all = {static_cast<std::int64_t>(direction),
                                   static_cast<std::int64_t>(determinism),
                                   static_cast<std::int64_t>(documents),
                                   static_cast<std::int64_t>(tokens),
                                   count,
                                   query_length,
                                   key_length,
                                   key_pitch,
                                   query_tokens,
                                   key_tokens,
                                   heads,
                                   kv_heads,
                                   dim,
                                   value_dim,
                                   window,
                                   row_heads,
                                   std::bit_cast<std::int64_t>(scale)};
  all.insert(all.end(), strides.begin(), strides.end());
  return all;
}

std::unique_ptr<AttentionPlan> make_attention_plan(cudnnContext* handle, const AttentionProblem& problem,
                                                   std::string& refusal) {
  auto plan = std::make_unique<FrontendPlan>();
  refusal = plan->build(handle, problem);
  if (!refusal.empty()) return nullptr;
  return plan;
}

}  // namespace verne::cuda
