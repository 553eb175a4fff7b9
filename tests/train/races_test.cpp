// Training and scoring of every layout on meta queues: whatever the order in which a GPU's queues run,
// nothing reads or overwrites what it should have waited for.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "small_engine.hpp"
#include "verne/tensor/race_checker.hpp"

namespace verne {
namespace {

using ::testing::IsEmpty;
using testing::SmallLayout;

struct Case {
  std::string family;
  SmallLayout layout;
  int data = 1;

  int ranks() const { return layout.tensor * layout.context * layout.pipeline * data; }
  ParallelLayout on(int rank) const { return layout.on(rank, ranks()); }
};
void PrintTo(const Case& c, std::ostream* out) {
  *out << c.family << " " << c.layout.text() << " DP" << c.data;
}

/// 4 layers, so that two stages of two chunks have one each.
ModelConfig config_of(const std::string& family) {
  std::string text = testing::small_config_text(family);
  const std::string_view key = R"("num_hidden_layers": 2)";
  text.replace(text.find(key), key.size(), R"("num_hidden_layers": 4)");
  return parse_model_config(text, "config.json");
}

/// The ranks of a grid that differ in what they hold or do: each stage's, at both ends of the other axes.
std::vector<int> different_ranks(const Case& c) {
  std::vector<int> ranks;
  const int stage = c.ranks() / c.layout.pipeline;
  for (int first = 0; first < c.ranks(); first += stage) {
    ranks.push_back(first);
    if (stage > 1) ranks.push_back(first + stage - 1);
  }
  return ranks;
}

EngineOptions options_of(const Case& c, DocumentTable table) {
  const std::int64_t length = padded_length(c.on(0), 24);
  EngineOptions options = testing::small_options(
      c.layout, {.rows = 2, .seq_length = length, .table = table, .document_capacity = 6});
  options.host.micro_batches = 3;
  return options;
}

/// An engine on meta queues that keep everything.
struct RecordedEngine {
  RecordedEngine(const Case& c, int rank, const EngineOptions& options)
      : runtime(ParallelRuntime::meta(c.on(rank), config_of(c.family), trace)),
        engine(config_of(c.family), runtime, options, kUnboundedArenas) {
    engine.initialize_random(1);
  }
  MetaTrace trace{Recording::everything};
  ParallelRuntime runtime;
  Engine engine;
};

class Races : public ::testing::TestWithParam<Case> {};

TEST_P(Races, TrainingHasNone) {
  Case c = GetParam();
  for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::full}) {
    c.layout.recompute = recompute;
    for (const int rank : different_ranks(c)) {
      EngineOptions options =
          options_of(c, recompute == Recompute::none ? DocumentTable::packed : DocumentTable::uniform);
      // More than the host has blocks of pinned memory for.
      if (recompute == Recompute::full) options.host.micro_batches = 20;
      RecordedEngine recorded(c, rank, options);
      auto& [trace, runtime, engine] = recorded;
      const Buffer scale(runtime.compute(), DType::f32, {1}, MemoryKind::batch),
          sum(runtime.compute(), DType::f64, {1}, MemoryKind::batch);
      runtime.compute().zero(scale.tensor());
      runtime.compute().zero(sum.tensor());
      const StepBatch batch = blank_batch(options.host);
      for (int step = 1; step <= 3; ++step) {
        engine.train_step(batch, step, 1e-3);
        if (step > 1) engine.read_step();
      }
      engine.read_step();
      engine.host().evaluate(batch, {scale.tensor(), sum.tensor()});
      engine.train_step(batch, 4, 1e-3);
      engine.read_step();
      EXPECT_THAT(find_races(trace), IsEmpty()) << "rank " << rank;
    }
  }
}

/// Whenever the host waits within a step, what it waits for was enqueued a micro-batch or more ago: the
/// device never runs dry. An event depends at most on what was enqueued before it.
TEST_P(Races, HostNeverWaitsForWhatItJustEnqueued) {
  const Case c = GetParam();
  for (const int rank : different_ranks(c)) {
    EngineOptions options = options_of(c, DocumentTable::packed);
    options.host.micro_batches = 8;
    RecordedEngine recorded(c, rank, options);
    auto& [trace, runtime, engine] = recorded;
    const StepBatch batch = blank_batch(options.host);
    for (int step = 1; step <= 2; ++step) engine.train_step(batch, step, 1e-3);
    engine.read_step();
    const std::int64_t begin = std::ssize(trace.entries());
    engine.train_step(batch, 3, 1e-3);
    const auto computed = [entries = trace.entries()](std::int64_t from, std::int64_t to) {
      return std::count_if(entries.begin() + from, entries.begin() + to, [](const TraceEntry& entry) {
        return entry.kind == TraceEntry::Kind::operation && entry.queue == 0;
      });
    };
    const std::int64_t end = std::ssize(trace.entries()), of_a_micro_batch = computed(begin, end) / 8;
    EXPECT_GT(of_a_micro_batch, 10);
    int waits = 0;
    for (std::int64_t at = begin; at < end; ++at) {
      const TraceEntry& entry = trace.entries()[static_cast<std::size_t>(at)];
      if (entry.kind != TraceEntry::Kind::host_wait) continue;
      ++waits;
      EXPECT_GE(computed(entry.event, at), of_a_micro_batch) << "rank " << rank;
    }
    EXPECT_GT(waits, 0) << "of the pinned memory that a micro-batch is built in";
  }
}

TEST_P(Races, ScoringHasNone) {
  const Case c = GetParam();
  const ModelConfig config = config_of(c.family);
  for (const int rank : different_ranks(c)) {
    MetaTrace trace(Recording::everything);
    ParallelRuntime runtime = ParallelRuntime::meta(c.on(rank), config, trace);
    HostOptions options = options_of(c, DocumentTable::packed).host;
    options.purpose = Purpose::inference;
    ModelHost host(config, runtime, options, kUnboundedArenas);
    host.initialize_random(1);
    host.log_probabilities(blank_batch(options), [](std::int64_t, std::span<const float>) {});
    host.log_probabilities(blank_batch(options), [](std::int64_t, std::span<const float>) {});
    EXPECT_THAT(find_races(trace), IsEmpty()) << "rank " << rank;
  }
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const char* family : {"llama", "qwen3", "nemotron"})
    for (const auto& [tensor, context, pipeline, chunks, data] :
         std::vector<std::array<int, 5>>{{1, 1, 1, 1, 1},
                                         {1, 1, 1, 1, 2},
                                         {2, 1, 1, 1, 1},
                                         {2, 1, 1, 1, 2},
                                         {4, 1, 1, 1, 1},
                                         {1, 2, 1, 1, 1},
                                         {1, 4, 1, 1, 1},
                                         {2, 2, 1, 1, 1},
                                         {1, 2, 1, 1, 2},
                                         {1, 1, 2, 1, 1},
                                         {1, 1, 4, 1, 1},
                                         {1, 1, 2, 2, 1},
                                         {2, 1, 2, 1, 1},
                                         {1, 2, 2, 1, 1},
                                         {1, 1, 2, 1, 2},
                                         {1, 2, 2, 1, 2},
                                         {2, 2, 2, 1, 1},
                                         {2, 2, 2, 2, 2}}) {
      const SmallLayout layout{
          .tensor = tensor, .context = context, .pipeline = pipeline, .chunks = chunks, .dtype = DType::bf16};
      all.push_back({family, layout, data});
      if (tensor == 2 && context == 1 && chunks == 1) {
        all.push_back(all.back());
        all.back().layout.sequence = TensorParallel::Sequence::whole;
      }
    }
  return all;
}

INSTANTIATE_TEST_SUITE_P(Layouts, Races, ::testing::ValuesIn(cases()), [](const auto& test) {
  const SmallLayout& layout = test.param.layout;
  return fmt::format("{}_tp{}{}_cp{}_pp{}x{}_dp{}", test.param.family, layout.tensor,
                     layout.sequence == TensorParallel::Sequence::whole ? "_whole" : "", layout.context,
                     layout.pipeline, layout.chunks, test.param.data);
});

}  // namespace
}  // namespace verne
