#include "verne/nn/parameter_store.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "verne/tensor/cpu_queue.hpp"
#include "verne/tensor/meta_queue.hpp"

namespace verne {
namespace {

using ::testing::ElementsAre;

Parameter parameter(const std::string& name, Shape shape,
                    TensorGradient gradient = TensorGradient::complete) {
  Parameter p;
  p.name = name;
  p.shape = shape;
  p.slices = {{.name = name, .shape = shape, .runs = row_block(0, 1, shape.count(), 0)}};
  p.tensor_gradient = gradient;
  return p;
}

struct Model {
  Parameter a = parameter("a", {10, 10});                           // 100 → 128 elements
  Parameter b = parameter("b", {7}, TensorGradient::partial);       // 7 → 64
  Parameter c = parameter("c", {64}), d = parameter("d", {5, 30});  // 64, 150 → 192
  Parameter e = parameter("e", {65}, TensorGradient::partial);      // 65 → 128
  std::vector<Parameter*> all = {&a, &b, &c, &d, &e};
};

TEST(ParameterStore, PlacesInReverseWithPartialBucketsLast) {
  CpuQueue queue;
  Model m;
  const ParameterStore store(queue, m.all, DType::f32, 1, 200, Purpose::training);
  ASSERT_EQ(store.buckets().size(), 3u);
  // d and c fill the first bucket beyond 200 elements; a opens the second; e and b are summed over tensor
  // ranks.
  EXPECT_THAT(store.buckets()[0].parameters, ElementsAre(3, 2));
  EXPECT_THAT(store.buckets()[1].parameters, ElementsAre(0));
  EXPECT_THAT(store.buckets()[2].parameters, ElementsAre(4, 1));
  EXPECT_FALSE(store.buckets()[0].partial);
  EXPECT_FALSE(store.buckets()[1].partial);
  EXPECT_TRUE(store.buckets()[2].partial);
  EXPECT_EQ(store.offset(m.d), 0);
  EXPECT_EQ(store.offset(m.c), 192);
  EXPECT_EQ(store.offset(m.a), 256);
  EXPECT_EQ(store.offset(m.e), 384);
  EXPECT_EQ(store.offset(m.b), 512);
  EXPECT_EQ(store.elements(), 576);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(m.all[static_cast<std::size_t>(i)]->index, i);
}

TEST(ParameterStore, BucketsAreWholeBlocksForEveryDataRank) {
  for (int data_ranks : {1, 2, 3, 8}) {
    for (std::int64_t bucket_elements : {1, 200, 1'000'000}) {
      MetaTrace trace;
      MetaQueue queue(trace, "compute");
      Model m;
      const ParameterStore store(queue, m.all, DType::bf16, data_ranks, bucket_elements, Purpose::training);
      std::int64_t at = 0;
      for (std::size_t i = 0; i < store.buckets().size(); ++i) {
        const Bucket& bucket = store.buckets()[i];
        EXPECT_EQ(bucket.begin, at);
        EXPECT_EQ(bucket.size % (64 * data_ranks), 0);
        std::int64_t used = 0, inside = bucket.begin;
        for (int index : bucket.parameters) {
          const Parameter& p = *m.all[static_cast<std::size_t>(index)];
          EXPECT_EQ(store.bucket_of(p), static_cast<int>(i));
          EXPECT_EQ(store.offset(p), inside);
          EXPECT_EQ(store.offset(p) % 64, 0);
          EXPECT_LT(used, bucket_elements);  // it was still open
          used += (p.shape.count() + 63) / 64 * 64;
          inside = bucket.begin + used;
          EXPECT_EQ(p.tensor_gradient == TensorGradient::partial, bucket.partial);
        }
        EXPECT_EQ(bucket.size, (used + 64 * data_ranks - 1) / (64 * data_ranks) * (64 * data_ranks));
        at += bucket.size;
      }
      EXPECT_EQ(store.elements(), at);
      const auto live = [&](MemoryKind kind) { return queue.memory().live[static_cast<std::size_t>(kind)]; };
      EXPECT_EQ(live(MemoryKind::weights), 2 * at);
      EXPECT_EQ(live(MemoryKind::gradients), 4 * at);
    }
  }
}

TEST(ParameterStore, InferenceHasNoGradients) {
  MetaTrace trace;
  MetaQueue queue(trace, "compute");
  Model m;
  const ParameterStore store(queue, m.all, DType::bf16, 1, 200, Purpose::inference);
  EXPECT_EQ(queue.memory().live_total(), 2 * store.elements());
}

TEST(ParameterStore, WeightsStandWhereTheirPartsSay) {
  CpuQueue queue;
  Model m;
  // Two slices in one buffer, the second a block of columns.
  m.d.slices = {
      {.name = "d.rows", .shape = {2, 30}, .runs = row_block(0, 2, 30, 0)},
      {.name = "d.columns",
       .shape = {3, 40},
       .runs = {
           {.global = 10, .local = 60, .length = 30, .count = 3, .global_stride = 40, .local_stride = 30}}}};
  const ParameterStore store(queue, m.all, DType::f32, 2, 200, Purpose::training);
  const auto flat = store.flat_weights();
  for (std::int64_t i = 0; i < flat.count(); ++i) EXPECT_EQ(flat.data<float>()[i], 0) << "not zero at first";
  for (const Parameter* p : m.all)
    for (std::int64_t i = 0; i < p->shape.count(); ++i)
      store.weight(*p).data<float>()[i] = static_cast<float>(1000 * p->index + i);
  std::map<std::string, std::map<std::int64_t, float>> logical;
  for (const TensorPart& part : store.weight_parts(DType::bf16)) {
    EXPECT_EQ(part.dtype, DType::bf16);
    for (const ElementRuns& r : part.runs)
      for (std::int64_t i = 0; i < r.count; ++i)
        for (std::int64_t e = 0; e < r.length; ++e)
          logical[part.name][r.global + i * r.global_stride + e] =
              part.local.data<float>()[r.local + i * r.local_stride + e];
  }
  EXPECT_EQ(logical.size(), 6u);
  const auto expect_values = [&](const char* name, std::int64_t count, float first) {
    ASSERT_EQ(std::ssize(logical[name]), count);
    for (std::int64_t i = 0; i < count; ++i) EXPECT_EQ(logical[name][i], first + static_cast<float>(i));
  };
  expect_values("a", 100, 0);
  expect_values("b", 7, 1000);
  expect_values("c", 64, 2000);
  expect_values("e", 65, 4000);
  expect_values("d.rows", 60, 3000);
  for (std::int64_t row = 0; row < 3; ++row)
    for (std::int64_t column = 0; column < 30; ++column)
      EXPECT_EQ(logical["d.columns"][row * 40 + 10 + column], 3060 + static_cast<float>(row * 30 + column));
  // A bucket's weights and gradients are views of the flat buffers.
  const Bucket& bucket = store.buckets()[1];
  EXPECT_EQ(store.weights(bucket).raw(), flat.raw() + 4 * bucket.begin);
  EXPECT_EQ(store.gradients(bucket).raw(), store.flat_gradients().raw() + 4 * bucket.begin);
  EXPECT_EQ(store.weights(bucket).count(), bucket.size);
  EXPECT_EQ(store.gradient(m.c).raw(), store.flat_gradients().raw() + 4 * store.offset(m.c));
}

}  // namespace
}  // namespace verne
