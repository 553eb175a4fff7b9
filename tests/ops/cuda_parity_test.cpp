// Every CUDA kernel against the CPU's, on the cases of cases.hpp: awkward shapes, strided rows, aliases,
// poisoned outputs and guarded memory.
#if VERNE_WITH_CUDA
#include <gmock/gmock.h>

#include "cases.hpp"
#include "verne/tensor/cpu_queue.hpp"
#include "verne/tensor/cuda_queue.hpp"

namespace verne::testing {
namespace {

/// Skips its tests on a machine without a GPU.
template <class Base>
class OnGpu : public Base {
 protected:
  void SetUp() override {
    if (CudaQueue::device_count() == 0) GTEST_SKIP() << "no GPU on this machine";
  }
};

struct CudaCase {
  OpCase op;
  Determinism determinism;
};

std::vector<CudaCase> cuda_cases() {
  std::vector<OpCase> ops = op_cases();
  // More than the CPU's own tests need: rows wider than the kernels keep in registers or may share without
  // asking, and documents longer than several tiles.
  for (const NormShape shape : {NormShape{5, 18432}, NormShape{700, 2048}, NormShape{3, 9001}}) {
    ops.push_back(
        {fmt::format("wide_rms_norm_{}x{}", shape.rows, shape.width),
         {DType::f32, DType::bf16},
         [=](Queue& queue, DType type) { return run_rms_norm(queue, type, shape, Alias::residual); }});
    ops.push_back(
        {fmt::format("wide_layer_norm_{}x{}", shape.rows, shape.width),
         {DType::f32, DType::bf16},
         [=](Queue& queue, DType type) { return run_layer_norm(queue, type, shape, Alias::residual); }});
  }
  using enum DocumentLayout::Kind;
  using enum Rows;
  for (OpCase& one : attention_cases_of({
           {"long_attention_packed_many", {{300, 257, 511, 64, 2, 128, 0, 0}, 8, 2, 128, 0, packed, strided}},
           {"long_attention_packed_wide_heads", {{65, 200}, 2, 1, 192, 0, packed}},
           {"long_attention_packed_full_size_window", {{700, 130}, 4, 4, 128, 200, packed, strided}},
           {"long_attention_uniform_wide_heads", {{200, 200}, 4, 2, 256, 0, uniform, strided}},
           {"long_attention_uniform_round", {{512, 512}, 8, 2, 128, 0, uniform, strided}},
           {"long_attention_uniform_round_window", {{512}, 8, 8, 64, 100, uniform, strided}},
           {"long_attention_packed_narrow_values",
            {{300, 257, 511, 64, 2, 128, 0}, 8, 8, 192, 0, packed, strided, 128}},
           {"long_attention_uniform_narrow_values", {{512, 512}, 4, 4, 192, 0, uniform, strided, 128}},
           {"long_attention_uniform_chunk",
            {{256, 256}, 8, 2, 128, 0, uniform, strided, 0, {768, 768}, {0, 1024, 1024}}},
           {"long_attention_uniform_chunk_window",
            {{256, 256}, 8, 2, 128, 100, uniform, strided, 0, {768, 768}, {0, 1024, 1024}}},
           {"long_attention_packed_chunk",
            {{40, 300, 172, 0}, 8, 2, 128, 0, packed, strided, 0, {1000, 0, 0, 0}, {500, 0, 0, 0, 300}}},
           {"long_attention_packed_chunk_window",
            {{40, 300, 172, 0}, 8, 2, 64, 150, packed, strided, 0, {1000, 40, 0, 7}, {500, 10, 0, 0, 300}}},
       }))
    ops.push_back(std::move(one));
  ops.push_back({"frequent_tokens", {DType::f32, DType::bf16}, [](Queue& queue, DType type) {
                   return run_embedding(queue, type, {3000, 512, 5, 1, 3});
                 }});
  std::vector<CudaCase> cases;
  for (const Determinism determinism : {Determinism::fast, Determinism::deterministic}) {
    for (const OpCase& op : ops) cases.push_back({op, determinism});
  }
  // Too large for cuDNN's reproducible backward at once: sorted by length, cut by documents, by heads of
  // packed and of equal documents.
  std::vector<std::int64_t> short_ones = {2048, 33, 7, 300}, long_ones = {1500, 4000, 33, 2100},
                            chunks = {2000, 5, 0, 48};
  short_ones.resize(64);
  long_ones.resize(10);
  chunks.resize(40);
  std::vector<std::int64_t> earlier = {2048, 0, 100};
  earlier.resize(40);
  for (OpCase& one : attention_cases_of({
           {"attention_in_pieces_by_length", {short_ones, 8, 2, 64, 0, packed, strided}},
           {"attention_in_pieces_by_length_and_documents", {long_ones, 32, 2, 16, 0, packed, strided}},
           {"attention_in_pieces_of_a_chunk", {chunks, 16, 2, 64, 0, packed, strided, 0, earlier}},
           {"attention_in_pieces_by_packed_heads", {{6000, 5}, 64, 2, 16, 0, packed, strided}},
           {"attention_in_pieces_by_uniform_heads", {{6000}, 64, 2, 16, 0, uniform}},
       })) {
    one.dtypes = {DType::bf16};
    cases.push_back({std::move(one), Determinism::deterministic});
  }
  return cases;
}

/// The queues live as long as the suite: cuDNN's plans take seconds to make.
class CudaOps : public OnGpu<::testing::TestWithParam<CudaCase>> {
 protected:
  static CudaQueue& queue(Determinism determinism) {
    auto& slot = determinism == Determinism::fast ? fast_ : deterministic_;
    if (!slot) slot = std::make_unique<CudaQueue>(0, determinism);
    return *slot;
  }
  static void TearDownTestSuite() {
    fast_.reset();
    deterministic_.reset();
  }

 private:
  static inline std::unique_ptr<CudaQueue> fast_, deterministic_;
};

TEST_P(CudaOps, IsEquivalentToReference) {
  const auto& [op, determinism] = GetParam();
  for (const DType type : op.dtypes) {
    CpuQueue cpu(4);
    CudaQueue& gpu = queue(determinism);
    const std::vector<Output> expected = op.run(cpu, type), actual = op.run(gpu, type);
    ASSERT_EQ(actual.size(), expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
      expect_close(actual[i].values, expected[i].values, tolerance(type).parity,
                   fmt::format("{} {}", name(type), expected[i].name));
    }
  }
}

TEST_P(CudaOps, RepeatsItsBitsOnADeterministicQueue) {
  const auto& [op, determinism] = GetParam();
  if (determinism == Determinism::fast) return;
  for (const DType type : op.dtypes) {
    CudaQueue& gpu = queue(determinism);
    const std::vector<Output> first = op.run(gpu, type), second = op.run(gpu, type);
    for (std::size_t i = 0; i < first.size(); ++i) {
      for (std::size_t e = 0; e < first[i].values.size(); ++e) {
        ASSERT_EQ(std::bit_cast<std::uint64_t>(second[i].values[e]),
                  std::bit_cast<std::uint64_t>(first[i].values[e]))
            << name(type) << " " << first[i].name << " at " << e;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cuda, CudaOps, ::testing::ValuesIn(cuda_cases()), [](const auto& info) {
  return info.param.op.name + (info.param.determinism == Determinism::fast ? "" : "_deterministic");
});

class CudaMatmulChoices : public OnGpu<::testing::Test> {};
class CudaQueueTest : public OnGpu<::testing::Test> {};

TEST_F(CudaMatmulChoices, TravelToAnotherQueue) {
  const auto multiply = [](CudaQueue& queue) {
    std::vector<Values> results;
    for (const std::int64_t m : {64, 128, 333}) {
      results.push_back(
          run_matmul(queue, DType::bf16, {m, 512, 1024, Transpose::no, Transpose::yes}, Result::storage)[0]
              .values);
    }
    return results;
  };
  CudaQueue measured(0), taking(0);
  const auto expected = multiply(measured);
  const std::vector<std::string> choices = matmul_choices(measured);
  ASSERT_EQ(choices.size(), 3u);
  std::vector<std::string> with_foreign = choices;
  with_foreign.push_back("cublaslt 1 sm_00 1sm 2 2 2 nonsense");
  take_matmul_choices(taking, with_foreign);
  EXPECT_EQ(matmul_choices(taking), choices);
  EXPECT_EQ(multiply(taking), expected);
  EXPECT_EQ(matmul_choices(taking), choices);

  std::string broken = choices[0];
  broken.back() = 'x';
  EXPECT_THROW(take_matmul_choices(taking, {broken}), UserError);
}

TEST_F(CudaQueueTest, MovesDataInOrder) {
  CudaQueue queue(0), other(0);
  constexpr std::int64_t kCount = 7'000'001;  // several blocks of the upload ring and a tail
  Buffer a(queue, DType::f32, Shape{kCount}, MemoryKind::scratch),
      b(queue, DType::f32, Shape{kCount}, MemoryKind::batch);
  EXPECT_EQ(queue.memory().live_total(), 2 * kCount * 4);
  std::vector<float> values(kCount), back(kCount);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 10007);
  const std::vector<float> original = values;
  queue.upload(a.tensor(), std::span<const float>(values));
  std::fill(values.begin(), values.end(), -1.0f);  // the source is free once the call returns
  const Event uploaded = queue.record();
  other.wait(uploaded);
  other.copy(b.tensor(), a.tensor());
  other.download(std::as_writable_bytes(std::span(back)), b.tensor());
  EXPECT_EQ(back, original);
  queue.zero(b.tensor().rows(5, 10));
  queue.download(std::as_writable_bytes(std::span(back)), b.tensor());
  EXPECT_EQ(back[4], original[4]);
  EXPECT_EQ(back[5], 0.0f);
  EXPECT_EQ(back[14], 0.0f);
  EXPECT_EQ(back[15], original[15]);
}

TEST_F(CudaQueueTest, SaysHowMuchMemoryIsMissing) {
  CudaQueue queue(0);
  try {
    queue.allocate(std::int64_t{1} << 50, MemoryKind::optimizer);
    FAIL() << "a petabyte was allocated";
  } catch (const SystemError& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("1125899906842624 bytes wanted for optimizer"));
  }
  EXPECT_EQ(queue.memory().live_total(), 0);
}

TEST(CudaDriver, WithoutItThereAreNoDevices) {
  if (CudaQueue::device_count() > 0) GTEST_SKIP() << "this machine has a GPU";
  EXPECT_EQ(CudaQueue::device_count(), 0);
  EXPECT_THROW(CudaQueue(0), SystemError);
}

}  // namespace
}  // namespace verne::testing
#endif
