// Speed of the CUDA kernels at the shapes of Llama-3.1-8B: 8,192 tokens, hidden 4,096, intermediate 14,336,
// vocabulary 128,256, 32 query and 8 key/value heads of 128. Prints each operation's median time, what it
// reached, and the share of the ceiling: of a device-to-device copy's bandwidth, or of the matrix units' rate
// on random data.
//   bench_cuda [PATTERN]    operations whose name holds PATTERN
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <string>
#include <vector>

#include "verne/ops/activation.hpp"
#include "verne/ops/attention.hpp"
#include "verne/ops/bias.hpp"
#include "verne/ops/cross_entropy.hpp"
#include "verne/ops/elementwise.hpp"
#include "verne/ops/embedding.hpp"
#include "verne/ops/matmul.hpp"
#include "verne/ops/optimizer.hpp"
#include "verne/ops/reduce.hpp"
#include "verne/ops/rms_norm.hpp"
#include "verne/ops/rope.hpp"
#include "verne/ops/run.hpp"
#include "verne/tensor/cuda_check.hpp"
#include "verne/tensor/cuda_queue.hpp"

namespace verne {
namespace {

constexpr double kBytesPerSecond = 4.3e12;  // one H200, bytes read and written
constexpr double kFlops = 790e12;           // one H200, bf16 on random data
constexpr int kWarmUps = 3, kBatches = 7;
constexpr double kBatchSeconds = 4e-3;  // long enough to hide the launches behind the work before them
constexpr std::int64_t kTokens = 8192, kHidden = 4096, kIntermediate = 14336, kVocabulary = 128256,
                       kHeads = 32, kKvHeads = 8, kHeadDim = 128, kQkv = (kHeads + 2 * kKvHeads) * kHeadDim;

class Bench {
 public:
  Bench(std::string pattern, Determinism determinism) : pattern_(std::move(pattern)), queue_(0, determinism) {
    for (cudaEvent_t& event : events_) check_cuda(cudaEventCreate(&event), "cudaEventCreate");
  }
  CudaQueue& queue() { return queue_; }
  bool wanted(const std::string& name) const { return name.find(pattern_) != std::string::npos; }
  /// Gives back the tensors made so far.
  void clear() {
    queue_.synchronize();
    buffers_.clear();
  }

  /// Of the queue: it keeps the largest that an operation asked for.
  std::int64_t workspace_bytes() const {
    std::int64_t bytes = queue_.memory().live[static_cast<std::size_t>(MemoryKind::scratch)];
    for (const Buffer& buffer : buffers_) bytes -= buffer.bytes();
    return bytes;
  }

  Tensor random(DType type, Shape shape, double deviation = 1) {
    const Tensor tensor = make(type, shape);
    const Tensor rows = tensor.view(Shape{1, shape.count()});
    verne::run(queue_, RandomNormal{.y = rows,
                                    .site = {.seed = 1, .site = ++site_},
                                    .deviation = deviation,
                                    .row_length = shape.count()});
    return tensor;
  }
  Tensor make(DType type, Shape shape) {
    buffers_.emplace_back(queue_, type, shape, MemoryKind::scratch);
    return buffers_.back().tensor();
  }
  template <class T>
  Tensor of(Shape shape, const std::vector<T>& values) {
    const Tensor tensor = make(dtype_of<T>(), shape);
    queue_.upload(tensor, std::span<const T>(values));
    return tensor;
  }

  /// Times one operation; its own cost counts, or the given part of its arithmetic.
  template <class Operation>
  void time(const std::string& name, const Operation& op, double part = 1) {
    if (!wanted(name)) return;
    const auto batch = [&](int runs) {
      check_cuda(cudaEventRecord(events_[0], queue_.stream()), "cudaEventRecord");
      for (int i = 0; i < runs; ++i) verne::run(queue_, op);
      check_cuda(cudaEventRecord(events_[1], queue_.stream()), "cudaEventRecord");
      check_cuda(cudaEventSynchronize(events_[1]), "cudaEventSynchronize");
      float milliseconds = 0;
      check_cuda(cudaEventElapsedTime(&milliseconds, events_[0], events_[1]), "cudaEventElapsedTime");
      return static_cast<double>(milliseconds) * 1e-3 / runs;
    };
    for (int i = 0; i < kWarmUps; ++i) batch(1);
    const int runs = std::clamp(static_cast<int>(kBatchSeconds / batch(1)), 1, 200);
    std::array<double, kBatches> times{};
    for (double& time : times) time = batch(runs);
    std::nth_element(times.begin(), times.begin() + kBatches / 2, times.end());
    const double seconds = times[kBatches / 2];
    Cost cost = op.cost();
    cost.flops *= part;
    const double matrix = cost.flops / seconds / kFlops, memory = cost.bytes / seconds / kBytesPerSecond;
    const bool arithmetic = cost.flops / kFlops > cost.bytes / kBytesPerSecond;
    fmt::print("{:<44} {:>9.3f} ms  {:>8.1f} {}  {:>5.1f} %\n", name, seconds * 1e3,
               arithmetic ? cost.flops / seconds / 1e12 : cost.bytes / seconds / 1e9,
               arithmetic ? "TFLOP/s" : "GB/s   ", 100 * (arithmetic ? matrix : memory));
    std::fflush(stdout);
  }

 private:
  std::string pattern_;
  CudaQueue queue_;
  std::array<cudaEvent_t, 2> events_{};
  std::vector<Buffer> buffers_;
  std::uint32_t site_ = 0;
};

void bench_norms(Bench& b) {
  const Tensor x = b.random(DType::bf16, {kTokens, kHidden}),
               residual = b.random(DType::bf16, {kTokens, kHidden});
  const Tensor y = b.make(DType::bf16, {kTokens, kHidden}), sum = b.make(DType::bf16, {kTokens, kHidden});
  const Tensor weight = b.random(DType::bf16, {kHidden}), bias = b.random(DType::bf16, {kHidden});
  const Tensor rstd = b.make(DType::f32, {kTokens}), mean = b.make(DType::f32, {kTokens});
  const Tensor dweight = b.make(DType::f32, {kHidden}), dbias = b.make(DType::f32, {kHidden});
  b.time("RmsNormForward",
         RmsNormForward{.y = y, .rstd = rstd, .sum = {}, .x = x, .residual = {}, .weight = weight});
  b.time("RmsNormForward, residual",
         RmsNormForward{.y = y, .rstd = rstd, .sum = sum, .x = x, .residual = residual, .weight = weight});
  b.time(
      "RmsNormBackward, dsum",
      RmsNormBackward{
          .dx = y, .dweight = dweight, .dy = x, .dsum = residual, .s = sum, .rstd = rstd, .weight = weight});
  b.time("RmsNormBackward, frozen",
         RmsNormBackward{
             .dx = y, .dweight = {}, .dy = x, .dsum = residual, .s = sum, .rstd = rstd, .weight = weight});
  b.time("LayerNormForward, residual", LayerNormForward{.y = y,
                                                        .mean = mean,
                                                        .rstd = rstd,
                                                        .sum = sum,
                                                        .x = x,
                                                        .residual = residual,
                                                        .weight = weight,
                                                        .bias = bias});
  b.time("LayerNormBackward, dsum", LayerNormBackward{.dx = y,
                                                      .dweight = dweight,
                                                      .dbias = dbias,
                                                      .dy = x,
                                                      .dsum = residual,
                                                      .s = sum,
                                                      .mean = mean,
                                                      .rstd = rstd,
                                                      .weight = weight});
}

void bench_rope(Bench& b) {
  const Tensor qkv = b.random(DType::bf16, {kTokens, kQkv}), out = b.make(DType::bf16, {kTokens, kQkv});
  const auto heads = [](const Tensor& rows) {
    return rows.columns(0, kHeads * kHeadDim).view({kTokens, kHeads, kHeadDim});
  };
  const Tensor cos = b.random(DType::f32, {kTokens, kHeadDim / 2}),
               sin = b.random(DType::f32, {kTokens, kHeadDim / 2});
  std::vector<std::int32_t> numbers(kTokens);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<std::int32_t>(i % 4096);
  const Tensor positions = b.of(Shape{kTokens}, numbers);
  const Tensor weight = b.random(DType::bf16, {kHeadDim}), rstd = b.make(DType::f32, {kTokens, kHeads});
  const Tensor dweight = b.make(DType::f32, {kHeadDim});
  b.time("RopeForward, 32 heads", RopeForward{.y = heads(out),
                                              .rstd = {},
                                              .x = heads(qkv),
                                              .weight = {},
                                              .cos = cos,
                                              .sin = sin,
                                              .positions = positions});
  b.time("RopeForward, 32 heads with norm", RopeForward{.y = heads(out),
                                                        .rstd = rstd,
                                                        .x = heads(qkv),
                                                        .weight = weight,
                                                        .cos = cos,
                                                        .sin = sin,
                                                        .positions = positions});
  b.time("RopeBackward, 32 heads", RopeBackward{.dx = heads(out),
                                                .dweight = {},
                                                .dy = heads(qkv),
                                                .x = {},
                                                .rstd = {},
                                                .weight = {},
                                                .cos = cos,
                                                .sin = sin,
                                                .positions = positions});
  b.time("RopeBackward, 32 heads with norm", RopeBackward{.dx = heads(out),
                                                          .dweight = dweight,
                                                          .dy = heads(qkv),
                                                          .x = heads(out),
                                                          .rstd = rstd,
                                                          .weight = weight,
                                                          .cos = cos,
                                                          .sin = sin,
                                                          .positions = positions});
}

void bench_elementwise(Bench& b) {
  const Tensor gate_up = b.random(DType::bf16, {kTokens, 2 * kIntermediate}),
               y = b.random(DType::bf16, {kTokens, kIntermediate});
  const Tensor dgate_up = b.make(DType::bf16, {kTokens, 2 * kIntermediate}),
               dx = b.make(DType::bf16, {kTokens, kIntermediate});
  const Tensor other = b.random(DType::bf16, {kTokens, kIntermediate});
  b.time("SwiGluForward", SwiGluForward{.y = dx, .gate_up = gate_up});
  b.time("SwiGluBackward", SwiGluBackward{.dgate_up = dgate_up, .dy = y, .gate_up = gate_up});
  b.time("SquaredReluForward", SquaredReluForward{.y = dx, .x = y});
  b.time("SquaredReluBackward", SquaredReluBackward{.dx = dx, .dy = other, .x = y});
  b.time("Add", Add{.y = dx, .a = dx, .b = y});
  b.time("Fill", Fill{.y = gate_up, .value = 1});
  const Tensor wide = b.make(DType::f32, {kTokens, kIntermediate});
  b.time("Cast, bf16 to f32", Cast{.y = wide, .x = y});
  b.time("Cast, f32 to bf16", Cast{.y = dx, .x = wide});
  b.time("Cast, strided copy", Cast{.y = dx, .x = gate_up.columns(0, kIntermediate)});
  const Tensor bias = b.random(DType::bf16, {kIntermediate}), dbias = b.make(DType::f32, {kIntermediate});
  const Tensor narrow = b.random(DType::bf16, {kTokens, kQkv});
  b.time("AddBias", AddBias{.y = dx, .bias = bias});
  b.time("BiasBackward, intermediate", BiasBackward{.dbias = dbias, .dy = y});
  b.time("BiasBackward, qkv",
         BiasBackward{.dbias = dbias.view({1, kIntermediate}).columns(0, kQkv).view({kQkv}), .dy = narrow});
}

void bench_vocabulary(Bench& b) {
  std::vector<std::int32_t> ids(kTokens);
  for (std::size_t i = 0; i < ids.size(); ++i)
    ids[i] = static_cast<std::int32_t>(i % 16 == 0 ? 11 : (i * 7919) % kVocabulary);
  const Tensor tokens = b.of(Shape{kTokens}, ids);
  {
    const Tensor weight = b.random(DType::bf16, {kVocabulary, kHidden}),
                 y = b.random(DType::bf16, {kTokens, kHidden});
    const Tensor dweight = b.make(DType::f32, {kVocabulary, kHidden});
    b.queue().zero(dweight);
    b.time("EmbeddingForward", EmbeddingForward{.y = y, .weight = weight, .tokens = tokens});
    b.time("EmbeddingBackward, adding",
           EmbeddingBackward{.dweight = dweight, .accumulate = Accumulate::yes, .dy = y, .tokens = tokens});
    b.time("EmbeddingBackward, overwriting",
           EmbeddingBackward{.dweight = dweight, .accumulate = Accumulate::no, .dy = y, .tokens = tokens});
    b.clear();
  }
  const Tensor targets = b.of(Shape{kTokens}, ids);
  const Tensor logits = b.random(DType::bf16, {kTokens, kVocabulary}),
               dlogits = b.make(DType::bf16, {kTokens, kVocabulary});
  const Tensor stats = b.make(DType::f32, {1, kTokens, 3}), log_probability = b.make(DType::f32, {kTokens}),
               lse = b.make(DType::f32, {kTokens});
  const Tensor mask = b.of(Shape{kTokens}, std::vector<std::uint8_t>(kTokens, 1)),
               scale = b.of(Shape{1}, std::vector<float>{1e-4f});
  b.time("CrossEntropyStatistics", CrossEntropyStatistics{.stats = stats.view({kTokens, 3}),
                                                          .logits = logits,
                                                          .targets = targets,
                                                          .valid_columns = kVocabulary});
  b.time("CrossEntropyCombine",
         CrossEntropyCombine{.log_probability = log_probability, .log_sum_exp = lse, .stats = stats});
  b.time("CrossEntropyBackward", CrossEntropyBackward{.dlogits = dlogits,
                                                      .logits = logits,
                                                      .targets = targets,
                                                      .log_sum_exp = lse,
                                                      .loss_mask = mask,
                                                      .scale = scale,
                                                      .valid_columns = kVocabulary});
}

void bench_optimizer(Bench& b) {
  constexpr std::int64_t n = 218'112'000;  // a layer of the 8B model
  const Tensor master = b.random(DType::f32, {n}), grad = b.random(DType::f32, {n}),
               m = b.random(DType::f32, {n});
  const Tensor v = b.make(DType::f32, {n}), weight = b.make(DType::bf16, {n});
  b.queue().zero(v);
  const Tensor scalars = b.of(Shape{kStepScalars}, std::vector<float>{1e-5f, 0.1f, 0.05f, 1, 1, 0});
  const Tensor total = b.of(Shape{1}, std::vector<double>{0});
  const std::vector<OptimizerSegment> all = {{.count = n, .decays = true, .counted = true}};
  const std::vector<std::int64_t> rows = optimizer_tiles(all);
  const Tensor tiles = b.of(Shape{std::ssize(rows) / kTileFields, kTileFields}, rows);
  b.time("AdamW, bf16 weight", AdamW{.weight = weight,
                                     .master = master,
                                     .exp_avg = m,
                                     .exp_avg_sq = v,
                                     .grad = grad,
                                     .scalars = scalars,
                                     .tiles = tiles});
  b.time("GradientSquares", GradientSquares{.total = total, .grad = grad, .tiles = tiles});
  b.time("SumOfSquares", SumOfSquares{.total = total, .values = grad});
}

void bench_matmul(Bench& b) {
  const std::array<std::tuple<std::string, std::int64_t, std::int64_t>, 5> layers{
      {{"qkv", kQkv, kHidden},
       {"attention out", kHidden, kHidden},
       {"gate_up", 2 * kIntermediate, kHidden},
       {"down", kHidden, kIntermediate},
       {"vocabulary", kVocabulary, kHidden}}};
  for (const auto& [name, out, in] : layers) {
    const Tensor x = b.random(DType::bf16, {kTokens, in}), w = b.random(DType::bf16, {out, in}, 0.02);
    const Tensor y = b.random(DType::bf16, {kTokens, out}), dx = b.make(DType::bf16, {kTokens, in});
    const Tensor dw = b.make(DType::f32, {out, in});
    b.queue().zero(dw);
    b.time("Matmul " + name + ", input gradient", Matmul{.d = dx, .a = y, .b = w});
    b.time("Matmul " + name + ", weight gradient adding",
           Matmul{.d = dw, .a = y, .b = x, .transpose_a = Transpose::yes, .accumulate = Accumulate::yes});
    b.time("Matmul " + name + ", forward", Matmul{.d = y, .a = x, .b = w, .transpose_b = Transpose::yes});
    b.time(
        "Matmul " + name + ", forward with bias",
        Matmul{.d = y, .a = x, .b = w, .bias = b.random(DType::bf16, {out}), .transpose_b = Transpose::yes});
    b.clear();
  }
}

/// Documents of one attention: of queries and, where those are not the same tokens, of keys.
struct AttentionBench {
  std::string name;
  std::int64_t kv_heads, dim, value_dim, window;
  DocumentLayout::Kind kind;
  std::vector<std::int32_t> query_starts, key_starts;  ///< key_starts empty: the queries'
};

/// Pairs that are visible.
double pairs_of(const AttentionBench& bench) {
  const std::vector<std::int32_t>& keys = bench.key_starts.empty() ? bench.query_starts : bench.key_starts;
  double pairs = 0;
  for (std::size_t i = 1; i < keys.size(); ++i) {
    pairs += static_cast<double>(visible_pairs(bench.query_starts[i] - bench.query_starts[i - 1],
                                               keys[i] - keys[i - 1], bench.window));
  }
  return pairs;
}

DocumentLayout documents_of(Bench& b, DocumentLayout::Kind kind, const std::vector<std::int32_t>& starts) {
  std::int64_t longest = 0;
  for (std::size_t i = 1; i < starts.size(); ++i)
    longest = std::max<std::int64_t>(longest, starts[i] - starts[i - 1]);
  if (kind == DocumentLayout::Kind::uniform) return uniform_documents(std::ssize(starts) - 1, longest);
  return packed_documents(b.of(Shape{std::ssize(starts)}, starts), longest);
}

void bench_attention(Bench& b, const AttentionBench& bench, const std::string& suffix) {
  const bool self = bench.key_starts.empty();
  const DocumentLayout query = documents_of(b, bench.kind, bench.query_starts);
  const AttentionLayout layout =
      self ? self_attention(query) : AttentionLayout{query, documents_of(b, bench.kind, bench.key_starts)};
  const std::int64_t queries = bench.query_starts.back(), keys = self ? queries : bench.key_starts.back();
  const std::int64_t q_width = kHeads * bench.dim, k_width = bench.kv_heads * bench.dim,
                     v_width = bench.kv_heads * bench.value_dim;
  // Self-attention as the layers have it: slices of one merged buffer.
  const auto three = [&](const std::function<Tensor(Shape)>& make) {
    const Tensor kv = make({keys, (self ? q_width : 0) + k_width + v_width});
    const Tensor q = self ? kv.columns(0, q_width) : make({queries, q_width});
    const std::int64_t first = self ? q_width : 0;
    return std::array<Tensor, 3>{
        q.view({queries, kHeads, bench.dim}),
        kv.columns(first, k_width).view({keys, bench.kv_heads, bench.dim}),
        kv.columns(first + k_width, v_width).view({keys, bench.kv_heads, bench.value_dim})};
  };
  const auto [q, k, v] = three([&](Shape shape) { return b.random(DType::bf16, shape); });
  const auto [dq, dk, dv] = three([&](Shape shape) { return b.make(DType::bf16, shape); });
  const Shape values{queries, kHeads, bench.value_dim};
  const Tensor out = b.make(DType::bf16, values), dout = b.random(DType::bf16, values);
  const Tensor lse = b.make(DType::f32, {queries * kHeads});
  const AttentionForward forward{.out = out,
                                 .log_sum_exp = lse,
                                 .q = q,
                                 .k = k,
                                 .v = v,
                                 .layout = layout,
                                 .scale = 0.088388,
                                 .window = bench.window};
  // An operation does not know packed documents' lengths, which are on the device, and counts at most.
  const double width = static_cast<double>(bench.dim + bench.value_dim);
  const double part = 2 * pairs_of(bench) * static_cast<double>(kHeads) * width / forward.cost().flops;
  b.time("AttentionForward, " + bench.name + suffix, forward, part);
  const AttentionBackward backward{.dq = dq,
                                   .dk = dk,
                                   .dv = dv,
                                   .dout = dout,
                                   .q = q,
                                   .k = k,
                                   .v = v,
                                   .out = out,
                                   .log_sum_exp = lse,
                                   .layout = layout,
                                   .scale = forward.scale,
                                   .window = bench.window};
  b.time("AttentionBackward, " + bench.name + suffix, backward, part);
  const std::int64_t bound = workspace_bound(backward, b.queue().determinism());
  fmt::print("{:<44} {:>9.1f} MB largest workspace so far, this backward's bound {:.1f} MB\n", "",
             static_cast<double>(b.workspace_bytes()) / 1e6, static_cast<double>(bound) / 1e6);
}

void bench_attentions(Bench& b, const std::string& suffix) {
  if (!b.wanted("Attention")) return;
  using enum DocumentLayout::Kind;
  const std::vector<std::int32_t> two{0, 4096, 8192}, eight{0, 40, 300, 1100, 2000, 3500, 4000, 4192, 8192};
  std::vector<std::int32_t> roomy{0, 40, 300, 1100, 2000, 3500, 4192};
  roomy.resize(65, kTokens);
  // One document of 4096, the rest short, and room for many more.
  std::vector<std::int32_t> short_ones{0, 4096};
  while (short_ones.back() < kTokens)
    short_ones.push_back(std::min<std::int32_t>(short_ones.back() + 100, kTokens));
  short_ones.resize(513, kTokens);
  const std::vector<AttentionBench> benches{
      {"2 documents of 4096", kKvHeads, 128, 128, 0, uniform, two, {}},
      {"2 documents of 4096, window 1024", kKvHeads, 128, 128, 1024, uniform, two, {}},
      {"8 packed documents", kKvHeads, 128, 128, 0, packed, eight, {}},
      {"7 packed documents, room for 64", kKvHeads, 128, 128, 0, packed, roomy, {}},
      {"42 packed documents, room for 512", kKvHeads, 128, 128, 0, packed, short_ones, {}},
      {"2 documents of 4096, 192/128", kHeads, 192, 128, 0, uniform, two, {}},
      {"8 packed documents, 192/128", kHeads, 192, 128, 0, packed, eight, {}},
      // Context parallelism over two ranks: the last quarter of a row of 16,384 against all of it.
      {"4096 queries of 16384", kKvHeads, 128, 128, 0, uniform, {0, 4096}, {0, 16384}},
      {"4096 queries of 16384, packed", kKvHeads, 128, 128, 0, packed, {0, 2000, 4096}, {0, 9000, 16384}},
      {"4096 queries of 16384, window 1024", kKvHeads, 128, 128, 1024, uniform, {0, 4096}, {0, 16384}}};
  for (const AttentionBench& bench : benches) {
    bench_attention(b, bench, suffix);
    b.clear();
  }
}

void run_all(const std::string& pattern) {
  fmt::print("{}\n", CudaQueue::device_name(0));
  Bench fast(pattern, Determinism::fast);
  for (const auto& part :
       {bench_norms, bench_rope, bench_elementwise, bench_vocabulary, bench_optimizer, bench_matmul}) {
    part(fast);
    fast.clear();
  }
  bench_attentions(fast, "");
  fast.clear();
  Bench deterministic(pattern, Determinism::deterministic);
  bench_attentions(deterministic, ", deterministic");
}

}  // namespace
}  // namespace verne

int main(int argc, char** argv) {
  if (verne::CudaQueue::device_count() == 0) {
    fmt::print("no GPU on this machine\n");
    return 0;
  }
  verne::run_all(argc > 1 ? argv[1] : "");
  return 0;
}
