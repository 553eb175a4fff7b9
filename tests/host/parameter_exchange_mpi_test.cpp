// Gradients leave when their last use is done, whatever the order of uses, and arrive as one sum with the
// same bits on all copies.
#include <gtest/gtest.h>
#include <mpi.h>

#include "small_model.hpp"
#include "verne/base/error.hpp"
#include "verne/host/parameter_exchange.hpp"
#include "whole_tensors.hpp"

namespace verne {
namespace {

using Copies = Placement::Copies;

Parameter parameter(const std::string& name, Shape shape, Placement placement = {}) {
  Parameter p;
  p.name = name;
  p.shape = shape;
  p.slices = {{.name = name, .shape = shape, .runs = row_block(0, 1, shape.count(), 0)}};
  p.placement = placement;
  return p;
}

/// A layout of the ranks over parameters of every kind of copies.
struct Setting {
  Setting(const HostGroup& world, ParallelSizes sizes)
      : layout{.grid = ProcessGrid(world.rank(), world.size(), sizes)},
        config([&] {
          ModelConfig model = testing::small_config("llama", 131, 1);  // one kv head: on all tensor ranks
          return model;
        }()),
        runtime(ParallelRuntime::cpu(world, layout, config, 1)) {
    own = parameter("own", {9, 11});
    partial =
        parameter("partial", {70}, {.copies = runtime.tensor().size() > 1 ? Copies::partial : Copies::none});
    equal = parameter("equal", {5}, {.copies = runtime.tensor().size() > 1 ? Copies::equal : Copies::none});
    kv = parameter("kv", {8, 10});
    if (runtime.tensor().size() > 1) kv.placement = {.copies = Copies::kv_heads, .first_copied_row = 3};
    tied = parameter("tied", {7, 6}, {.copies = runtime.embedding() ? Copies::stages : Copies::none});
    tied.uses = 2;
    store.emplace(runtime.compute(),
                  std::vector<std::vector<Parameter*>>{{&own, &partial}, {&equal, &kv, &tied}}, DType::f32,
                  runtime.owner_place(), 100, Purpose::training);
    exchange.emplace(runtime, *store);
  }
  ParallelLayout layout;
  ModelConfig config;
  ParallelRuntime runtime;
  Parameter own, partial, equal, kv, tied;
  std::optional<ParameterStore> store;
  std::optional<ParameterExchange> exchange;
};

/// What rank `rank` adds to element i of a parameter in one use.
float contribution(int rank, int parameter, std::int64_t i) {
  return static_cast<float>((i * 7 + parameter * 5 + rank * 3) % 16) / 8;
}

std::vector<ParallelSizes> layouts(int ranks) {
  std::vector<ParallelSizes> all;
  for (int tensor = 1; tensor <= std::min(ranks, 4); tensor *= 2)
    for (int pipeline = 1; tensor * pipeline <= ranks; pipeline *= 2)
      all.push_back({.tensor = tensor, .pipeline = pipeline});
  return all;
}

TEST(ParameterExchange, SumsOverTheRightRanksAndKeepsCopiesEqual) {
  const HostGroup world(MPI_COMM_WORLD);
  for (const ParallelSizes& sizes : layouts(world.size())) {
    Setting s(world, sizes);
    SCOPED_TRACE(s.layout.grid.text());
    constexpr std::int64_t kMicroBatches = 3;
    s.exchange->begin_step(kMicroBatches);
    // Uses of one parameter in a row, then the next one's: no order of micro-batches.
    for (const Parameter* p : s.store->parameters()) {
      for (std::int64_t use = 0; use < p->uses * kMicroBatches; ++use) {
        const Gradient gradient = s.exchange->grad(*p);
        EXPECT_EQ(gradient.accumulate == Accumulate::no, use == 0);
        for (std::int64_t i = 0; i < p->shape.count(); ++i) {
          // Equal copies have the whole gradient on every tensor rank.
          const int rank =
              p->placement.copies == Copies::equal ? world.rank() - s.layout.grid.tensor() : world.rank();
          float& value = gradient.tensor.data<float>()[i];
          value = contribution(rank, p->index, i) + (gradient.accumulate == Accumulate::yes ? value : 0.0f);
        }
        s.exchange->grad_done(*p);
      }
    }
    s.exchange->finish_gradients();
    const auto at = [&](int rank) { return ProcessGrid(rank, world.size(), sizes); };
    const ProcessGrid& own = s.layout.grid;
    for (const Parameter* p : s.store->parameters()) {
      const PoolRange owned = s.store->owned(s.store->buckets()[s.store->bucket_of(*p)]);
      for (std::int64_t i = 0; i < p->shape.count(); ++i) {
        const std::int64_t place = s.store->offset(*p) + i;
        if (place < owned.begin || place >= owned.end()) continue;
        float expected = 0;
        for (int rank = 0; rank < world.size(); ++rank) {
          const ProcessGrid grid = at(rank);
          const bool same_stage = grid.pipeline() == own.pipeline();
          bool adds = same_stage && grid.tensor() == own.tensor();
          if (p->placement.copies == Copies::partial) adds = same_stage;
          if (p->placement.copies == Copies::kv_heads && i >= p->first_copied()) adds = same_stage;
          if (p->placement.copies == Copies::stages)
            adds = grid.tensor() == own.tensor() && (grid.is_first_stage() || grid.is_last_stage());
          const int source = p->placement.copies == Copies::equal ? rank - grid.tensor() : rank;
          if (adds)
            expected += static_cast<float>(p->uses * kMicroBatches) * contribution(source, p->index, i);
        }
        ASSERT_EQ(s.store->gradient(*p).data<float>()[i], expected) << p->name << " " << i;
      }
    }
  }
}

TEST(ParameterExchange, MoreUsesThanWereSaidAreABug) {
  const HostGroup alone;
  Setting s(alone, {});
  s.exchange->begin_step(1);
  s.exchange->grad(s.own);
  s.exchange->grad_done(s.own);
  EXPECT_THROW(s.exchange->grad_done(s.own), InternalError);
  EXPECT_THROW(s.exchange->finish_gradients(), InternalError) << "the others have no gradient yet";
}

TEST(ParameterExchange, GathersWhatEveryRankOwns) {
  const HostGroup world(MPI_COMM_WORLD);
  Setting s(world, {});
  for (const Bucket& bucket : s.store->buckets()) {
    const PoolRange owned = s.store->owned(bucket);
    for (float& value : s.store->weights(bucket, owned).span<float>())
      value = static_cast<float>(1 + world.rank());
  }
  s.exchange->gather_weights();
  for (const Parameter* p : s.store->parameters()) {
    const Bucket& bucket = s.store->buckets()[s.store->bucket_of(*p)];
    const Tensor weight = s.exchange->weight(*p).data;
    for (std::int64_t i = 0; i < weight.count(); ++i) {
      const std::int64_t owner = (s.store->offset(*p) + i - bucket.begin) / (bucket.size / world.size());
      EXPECT_EQ(weight.data<float>()[i], static_cast<float>(1 + owner));
    }
  }
}

}  // namespace
}  // namespace verne
