// The sharded optimizer on 1, 2 and 4 ranks. Gradients are small multiples of 1/64, so that sums of squares
// are exact in any order and clipping cannot hide or make a difference.
#include <gtest/gtest.h>
#include <mpi.h>

#include <cmath>
#include <cstring>
#include <map>

#include "verne/comm/host_group.hpp"
#include "verne/ops/elementwise.hpp"
#include "verne/ops/run.hpp"
#include "verne/optim/adamw_optimizer.hpp"
#include "verne/tensor/cpu_queue.hpp"
#include "whole_tensors.hpp"

namespace verne {
namespace {

Parameter parameter(const std::string& name, Shape shape) {
  Parameter p;
  p.name = name;
  p.shape = shape;
  p.slices = {{.name = name, .shape = shape, .runs = row_block(0, 1, shape.count(), 0)}};
  return p;
}

float weight_value(int parameter, std::int64_t i) {
  return 0.5f * static_cast<float>((i * 37 + parameter * 11) % 97 - 48) / 48;
}
float gradient_value(int parameter, std::int64_t i, std::int64_t step) {
  return static_cast<float>((i * 29 + parameter * 13 + step * 7) % 65 - 32) / 64;
}

/// One rank's parameters, store and optimizer; gradients are given, as if reduced.
struct Rank {
  Rank(DType dtype, const AdamWSettings& settings, const AdamWOptimizer::Place& place)
      : store(queue, all(), dtype, place.data_ranks, 300, Purpose::training),
        optimizer(queue, store, settings, place) {
    for (const Parameter* p : store.parameters()) {
      std::vector<float> values(static_cast<std::size_t>(p->shape.count()));
      for (std::size_t i = 0; i < values.size(); ++i)
        values[i] = weight_value(p->index, static_cast<std::int64_t>(i));
      set(store.weight(*p), values);
    }
    optimizer.initialize(queue);
  }
  std::vector<Parameter*> all() {
    norm.tensor_gradient = TensorGradient::partial;
    return {&embedding, &norm, &wide, &bias, &odd};
  }
  void set(const Tensor& to, std::vector<float>& values) {
    const Tensor from(reinterpret_cast<std::byte*>(values.data()), DType::f32, to.shape());
    run(queue, Cast{.y = to, .x = from});
  }
  void set_gradients(std::int64_t step, float factor = 1) {
    for (const Parameter* p : store.parameters())
      for (std::int64_t i = 0; i < p->shape.count(); ++i)
        store.gradient(*p).data<float>()[i] = factor * gradient_value(p->index, i, step);
  }
  /// One update; `sum` completes the sum of squares over the ranks.
  template <class Sum>
  void step(std::int64_t step, double learning_rate, Sum&& sum) {
    optimizer.begin_step(queue, step, learning_rate);
    double squares = 0;
    const Tensor total(reinterpret_cast<std::byte*>(&squares), DType::f64, {1});
    optimizer.add_sum_of_squares(queue, total);
    squares = sum(squares);
    optimizer.set_clip(queue, total);
    optimizer.update(queue);
  }

  CpuQueue queue;
  Parameter embedding = parameter("embedding", {23, 10}), norm = parameter("norm", {10}),
            wide = parameter("wide", {7, 31}), bias = parameter("bias", {71}),
            odd = parameter("odd", {3, 3, 5});
  ParameterStore store;
  AdamWOptimizer optimizer;
};

using testing::whole_tensors;

constexpr AdamWSettings kSettings{
    .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .clip_grad = 1};

TEST(AdamWOptimizer, ShardedOverDataRanksEqualsOneRankBitForBit) {
  const HostGroup world(MPI_COMM_WORLD), alone;
  for (DType dtype : {DType::f32, DType::bf16}) {
    Rank sharded(dtype, kSettings, {.data_rank = world.rank(), .data_ranks = world.size()});
    Rank single(dtype, kSettings, {});
    for (std::int64_t step = 1; step <= 5; ++step) {
      sharded.set_gradients(step);
      single.set_gradients(step);
      sharded.step(step, 1e-2, [&](double squares) { return world.sum(squares); });
      single.step(step, 1e-2, [](double squares) { return squares; });
      EXPECT_EQ(sharded.optimizer.grad_norm().data<float>()[0],
                single.optimizer.grad_norm().data<float>()[0]);
    }
    for (OptimizerState state :
         {OptimizerState::master, OptimizerState::exp_avg, OptimizerState::exp_avg_sq}) {
      const auto found = whole_tensors(world, sharded.queue, sharded.optimizer.parts(state, Copies::all));
      const auto expected = whole_tensors(alone, single.queue, single.optimizer.parts(state, Copies::all));
      ASSERT_EQ(found.size(), 5u);
      for (const auto& [name, values] : expected) {
        EXPECT_EQ(found.at(name), values) << name << " " << static_cast<int>(state);
        double sum = 0;
        for (double value : values) sum += std::abs(value);
        EXPECT_GT(sum, 0) << name;
      }
    }
    // The weights of a rank's own blocks are its masters, rounded; over the ranks they make the whole.
    for (std::size_t b = 0; b < sharded.store.buckets().size(); ++b) {
      const Bucket& bucket = sharded.store.buckets()[b];
      const std::int64_t block = bucket.size / world.size(), first = bucket.begin + world.rank() * block;
      for (int index : bucket.parameters) {
        const Parameter &p = *sharded.store.parameters()[static_cast<std::size_t>(index)],
                        &q = *single.store.parameters()[static_cast<std::size_t>(index)];
        const std::int64_t size = bytes_of(dtype, 1);
        for (std::int64_t i = 0; i < p.shape.count(); ++i) {
          const std::int64_t at = sharded.store.offset(p) + i;
          if (at < first || at >= first + block) continue;
          EXPECT_EQ(std::memcmp(sharded.store.flat_weights().raw() + at * size,
                                single.store.flat_weights().raw() + (single.store.offset(q) + i) * size,
                                static_cast<std::size_t>(size)),
                    0)
              << p.name << " " << i;
        }
      }
    }
  }
}

/// The formulas of Loshchilov and Hutter in double.
TEST(AdamWOptimizer, FollowsTheFormulas) {
  const HostGroup alone;
  Rank rank(DType::f32, kSettings, {});
  std::map<std::string, std::vector<double>> w, m, v;
  for (const Parameter* p : rank.store.parameters()) {
    for (std::int64_t i = 0; i < p->shape.count(); ++i)
      w[p->name].push_back(static_cast<double>(weight_value(p->index, i)));
    m[p->name].resize(w[p->name].size());
    v[p->name].resize(w[p->name].size());
  }
  for (std::int64_t step = 1; step <= 4; ++step) {
    rank.set_gradients(step);
    rank.step(step, 1e-2, [](double squares) { return squares; });
    double squares = 0;
    for (const Parameter* p : rank.store.parameters())
      for (std::int64_t i = 0; i < p->shape.count(); ++i)
        squares += std::pow(static_cast<double>(gradient_value(p->index, i, step)), 2);
    EXPECT_NEAR(rank.optimizer.grad_norm().data<float>()[0], std::sqrt(squares), 1e-6 * std::sqrt(squares));
    const double clip = std::min(1.0, 1 / (std::sqrt(squares) + 1e-6));
    const double c1 = 1 - std::pow(0.9, step), c2 = 1 - std::pow(0.95, step);
    for (const Parameter* p : rank.store.parameters()) {
      for (std::size_t i = 0; i < w[p->name].size(); ++i) {
        const double g =
            clip * static_cast<double>(gradient_value(p->index, static_cast<std::int64_t>(i), step));
        m[p->name][i] = 0.9 * m[p->name][i] + 0.1 * g;
        v[p->name][i] = 0.95 * v[p->name][i] + 0.05 * g * g;
        if (p->shape.rank() >= 2) w[p->name][i] *= 1 - 1e-2 * 0.1;
        w[p->name][i] -= 1e-2 / c1 * m[p->name][i] / (std::sqrt(v[p->name][i] / c2) + 1e-8);
      }
    }
  }
  const auto found =
      whole_tensors(alone, rank.queue, rank.optimizer.parts(OptimizerState::master, Copies::all));
  for (const auto& [name, expected] : w)
    for (std::size_t i = 0; i < expected.size(); ++i)
      EXPECT_NEAR(found.at(name)[i], expected[i], 2e-6) << name << " " << i;
}

TEST(AdamWOptimizer, DecayTouchesTensorsOfTwoOrMoreDimensionsAlone) {
  const HostGroup world(MPI_COMM_WORLD);
  AdamWSettings settings = kSettings;
  settings.weight_decay = 0.5;
  Rank rank(DType::bf16, settings, {.data_rank = world.rank(), .data_ranks = world.size()});
  const auto before =
      whole_tensors(world, rank.queue, rank.optimizer.parts(OptimizerState::master, Copies::all));
  rank.set_gradients(1, 0);
  rank.step(1, 0.25, [&](double squares) { return world.sum(squares); });
  const auto after =
      whole_tensors(world, rank.queue, rank.optimizer.parts(OptimizerState::master, Copies::all));
  for (const auto& [name, values] : before) {
    const double factor = name == "norm" || name == "bias" ? 1 : 1 - 0.25 * 0.5;
    for (std::size_t i = 0; i < values.size(); ++i)
      EXPECT_FLOAT_EQ(static_cast<float>(after.at(name)[i]), static_cast<float>(factor * values[i])) << name;
  }
}

TEST(AdamWOptimizer, NotFiniteGradientsChangeNothing) {
  const HostGroup world(MPI_COMM_WORLD);
  Rank rank(DType::f32, kSettings, {.data_rank = world.rank(), .data_ranks = world.size()});
  const auto before =
      whole_tensors(world, rank.queue, rank.optimizer.parts(OptimizerState::master, Copies::all));
  rank.set_gradients(1);
  rank.store.gradient(rank.wide).data<float>()[5] = INFINITY;
  rank.step(1, 0.1, [&](double squares) { return world.sum(squares); });
  EXPECT_FALSE(std::isfinite(rank.optimizer.grad_norm().data<float>()[0]));
  EXPECT_EQ(whole_tensors(world, rank.queue, rank.optimizer.parts(OptimizerState::master, Copies::all)),
            before);
  for (const auto& [name, values] :
       whole_tensors(world, rank.queue, rank.optimizer.parts(OptimizerState::exp_avg, Copies::all)))
    for (double value : values) EXPECT_EQ(value, 0) << name;
}

/// Every layout of the ranks: the ranks' sums of squares add up to that of the logical tensors, each element
/// once.
TEST(AdamWOptimizer, GradientNormCountsEachLogicalElementOnce) {
  const HostGroup world(MPI_COMM_WORLD);
  for (int tensor_ranks = 1; tensor_ranks <= world.size(); tensor_ranks *= 2) {
    for (int replicas = 1; replicas <= tensor_ranks; replicas *= 2) {
      const int tensor_rank = world.rank() % tensor_ranks, data_ranks = world.size() / tensor_ranks;
      CpuQueue queue;
      Parameter rows = parameter("rows", {9, 11}), norm = parameter("norm", {13}),
                qkv = parameter("qkv", {8, 10}), output = parameter("output", {5, 70});
      norm.tensor_gradient = TensorGradient::partial;
      norm.held_by_all_tensor_ranks = true;
      if (replicas > 1) {
        qkv.tensor_gradient = TensorGradient::kv_replicas;
        qkv.replicated_row = 3;
      }
      const std::vector<Parameter*> all = {&rows, &norm, &qkv, &output};
      const ParameterStore store(queue, all, DType::bf16, data_ranks, 150, Purpose::training);
      const AdamWOptimizer optimizer(queue, store, kSettings,
                                     {.data_rank = world.rank() / tensor_ranks,
                                      .data_ranks = data_ranks,
                                      .tensor_rank = tensor_rank,
                                      .tensor_ranks = tensor_ranks,
                                      .kv_replicas = replicas});
      // `who` tells apart whose logical elements a rank holds.
      const auto fill = [&](const Parameter& p, std::int64_t begin, std::int64_t end, int who) {
        double squares = 0;
        for (std::int64_t i = begin; i < end; ++i) {
          const float value = gradient_value(p.index, i, who);
          store.gradient(p).data<float>()[i] = value;
          squares += static_cast<double>(value) * static_cast<double>(value);
        }
        return squares;
      };
      double expected = 0;
      for (int t = 0; t < tensor_ranks; ++t) {
        expected += fill(rows, 0, 99, t) + fill(output, 0, 350, t) + fill(qkv, 0, 30, t);
        if (t % replicas == 0) expected += fill(qkv, 30, 80, t / replicas);
      }
      expected += fill(norm, 0, 13, 0);
      fill(rows, 0, 99, tensor_rank);
      fill(output, 0, 350, tensor_rank);
      fill(qkv, 0, 30, tensor_rank);
      fill(qkv, 30, 80, tensor_rank / replicas);
      double squares = 0;
      optimizer.add_sum_of_squares(queue, Tensor(reinterpret_cast<std::byte*>(&squares), DType::f64, {1}));
      EXPECT_DOUBLE_EQ(world.sum(squares), expected)
          << tensor_ranks << " tensor ranks, " << replicas << " replicas";
    }
  }
}

}  // namespace
}  // namespace verne
