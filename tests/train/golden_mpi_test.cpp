// Small models against Hugging Face's own numbers, and every layout of the ranks against one rank.
#include <gtest/gtest.h>
#include <mpi.h>

#include <cmath>
#include <cstring>
#include <map>

#include "testing.hpp"
#include "verne/io/hf_folder.hpp"
#include "verne/io/load.hpp"
#include "verne/io/safetensors.hpp"
#include "verne/train/engine.hpp"
#include "verne/train/hardware.hpp"
#include "whole_tensors.hpp"

namespace verne {
namespace {

namespace fs = std::filesystem;

template <class T>
std::vector<T> read_tensor(const SafetensorsFile& file, const std::string& name, Shape* shape = nullptr) {
  const TensorInfo* info = file.find(name);
  require(info != nullptr, "{}: no tensor {}", file.origin(), name);
  std::vector<T> values(static_cast<std::size_t>(info->shape.count()));
  require(info->bytes() == static_cast<std::int64_t>(values.size() * sizeof(T)), "{}: {} has another dtype",
          file.origin(), name);
  file.read(*info, 0, std::as_writable_bytes(std::span(values)));
  if (shape) *shape = info->shape;
  return values;
}

/// Rows of equal length, one document each, as a micro-batch; padded to `seq_length`.
MicroBatch micro_batch_of(std::span<const std::int64_t> ids, std::span<const std::uint8_t> mask,
                          std::int64_t rows, std::int64_t length, std::int64_t seq_length) {
  MicroBatch batch{.rows = rows, .seq_length = seq_length, .documents = rows, .real_tokens = rows * length};
  const auto total = static_cast<std::size_t>(rows * seq_length);
  batch.tokens.resize(total);
  batch.targets.resize(total);
  batch.loss_mask.resize(total);
  batch.positions.resize(total);
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t t = 0; t < seq_length; ++t) {
      const auto at = static_cast<std::size_t>(r * seq_length + t);
      batch.positions[at] = static_cast<std::int32_t>(t);
      if (t < length)
        batch.tokens[at] = static_cast<std::int32_t>(ids[static_cast<std::size_t>(r * length + t)]);
      if (t + 1 < length) {
        const auto next = static_cast<std::size_t>(r * length + t + 1);
        batch.targets[at] = static_cast<std::int32_t>(ids[next]);
        batch.loss_mask[at] = mask[next];
        batch.counted_tokens += mask[next];
      }
    }
    batch.document_starts.push_back(static_cast<std::int32_t>(r * seq_length));
  }
  batch.document_starts.push_back(static_cast<std::int32_t>(rows * seq_length));
  return batch;
}

struct Layout {
  DeviceKind device = DeviceKind::cpu;
  int tensor = 1;
  TensorParallel::Sequence sequence = TensorParallel::Sequence::sharded;
  Recompute recompute = Recompute::none;
};

/// One golden case under one layout of all ranks; the batch's rows are dealt out to the data ranks.
class Case {
 public:
  Case(const fs::path& folder, const Layout& layout)
      : world_(MPI_COMM_WORLD),
        folder_(folder),
        golden_(folder / "golden.safetensors"),
        config_(parse_model_config(folder_.config_text(), "config.json")),
        grid_(world_.rank(), world_.size(), {.tensor = layout.tensor}) {
    ids_ = read_tensor<std::int64_t>(golden_, "input_ids", &shape_);
    steps_ = read_tensor<std::int64_t>(golden_, "steps.input_ids");
    const TensorInfo* info = golden_.find("loss_mask");
    if (info->dtype == DType::u8) {
      mask_ = read_tensor<std::uint8_t>(golden_, "loss_mask");
    } else {
      for (std::int64_t bit : read_tensor<std::int64_t>(golden_, "loss_mask"))
        mask_.push_back(static_cast<std::uint8_t>(bit));
    }
    const std::int64_t data = grid_.sizes().data;
    require(shape_[0] % data == 0, "{} rows over {} data ranks", shape_[0], data);
    rows_ = shape_[0] / data;
    padded_ = (shape_[1] + layout.tensor - 1) / layout.tensor * layout.tensor;
    runtime_.emplace(make_runtime(world_, grid_, config_, layout.sequence, layout.device, world_.rank(), 1,
                                  ParallelRuntime::Bits::reproducible, nullptr));
    const EngineOptions options{
        .dtype = DType::f32,
        .recompute = layout.recompute,
        .optimizer = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .clip_grad = 0},
        .batch = {.rows = rows_,
                  .seq_length = padded_,
                  .table = DocumentTable::uniform,
                  .document_capacity = rows_},
        .bucket_elements = 20'000};
    const EnginePlan plan = Engine::plan(config_, grid_, layout.sequence, options);
    engine_.emplace(config_, *runtime_, options, plan.arenas);
    load_parts(folder_, world_, runtime_->compute(), engine_->weight_parts(DType::f32));
    engine_->weights_changed();
  }

  StepBatch batch(std::span<const std::int64_t> ids) const {
    const std::int64_t first = grid_.data() * rows_ * shape_[1];
    const MicroBatch own =
        micro_batch_of(ids.subspan(static_cast<std::size_t>(first)),
                       std::span(mask_).subspan(static_cast<std::size_t>(first)), rows_, shape_[1], padded_);
    return {.counted_tokens = micro_batch_of(ids, mask_, shape_[0], shape_[1], padded_).counted_tokens,
            .micro_batches = 1,
            .micro_batch = [own](std::int64_t) { return own; }};
  }
  StepBatch first_batch() const { return batch(ids_); }
  std::int64_t steps() const { return static_cast<std::int64_t>(steps_.size() / ids_.size()); }
  StepBatch step_batch(std::int64_t i) const {
    return batch(std::span(steps_).subspan(static_cast<std::size_t>(i) * ids_.size(), ids_.size()));
  }

  HostGroup world_;
  HfFolder folder_;
  SafetensorsFile golden_;
  ModelConfig config_;
  ProcessGrid grid_;
  Shape shape_;
  std::int64_t rows_ = 0, padded_ = 0;
  std::vector<std::int64_t> ids_, steps_;
  std::vector<std::uint8_t> mask_;
  std::optional<ParallelRuntime> runtime_;
  std::optional<Engine> engine_;
};

std::vector<fs::path> case_folders() {
  std::vector<fs::path> folders;
  std::vector<fs::path> roots = {testing::golden_dir() / "models"};
  if (const auto shared = testing::shared_dir()) roots.push_back(*shared / "golden");
  for (const fs::path& root : roots)
    for (const char* family : {"llama", "qwen3", "mistral", "nemotron"})
      if (fs::exists(root / family / "golden.safetensors")) folders.push_back(root / family);
  return folders;
}

/// The CPU, and GPUs where every rank has one.
std::vector<DeviceKind> devices(int ranks) {
  std::vector<DeviceKind> all = {DeviceKind::cpu};
  if (visible_gpus() >= ranks) all.push_back(DeviceKind::cuda);
  return all;
}

std::vector<Layout> layouts(int ranks) {
  std::vector<Layout> all;
  for (DeviceKind device : devices(ranks))
    for (int tensor = std::max(1, ranks / 2); tensor <= ranks;
         tensor *= 2) {  // the cases have two rows: at most two data ranks
      all.push_back({.device = device, .tensor = tensor});
      if (tensor > 1)
        all.push_back({.device = device, .tensor = tensor, .sequence = TensorParallel::Sequence::whole});
    }
  return all;
}

class Golden : public ::testing::TestWithParam<fs::path> {};

std::string label(const ::testing::TestParamInfo<fs::path>& info) {
  const bool own = info.param.string().find(testing::golden_dir().string()) == 0;
  return (own ? "own_" : "shared_") + info.param.filename().string();
}

TEST_P(Golden, LogitsEqualHuggingFace) {
  int ranks = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  if (ranks > 1) GTEST_SKIP() << "logits are compared on one rank";
  for (DeviceKind device : devices(ranks)) {
    Case c(GetParam(), {.device = device});
    const auto expected = read_tensor<float>(c.golden_, "logits");
    const auto found = c.engine_->logits(c.first_batch().micro_batch(0));
    const std::int64_t vocabulary = c.config_.vocab_size, columns = c.engine_->logit_columns();
    float largest = 0, difference = 0;
    for (std::int64_t t = 0; t < static_cast<std::int64_t>(expected.size()) / vocabulary; ++t) {
      for (std::int64_t v = 0; v < vocabulary; ++v) {
        const float e = expected[static_cast<std::size_t>(t * vocabulary + v)];
        largest = std::max(largest, std::abs(e));
        difference = std::max(difference, std::abs(e - found[static_cast<std::size_t>(t * columns + v)]));
      }
    }
    EXPECT_LE(difference, 5e-6f * largest) << (device == DeviceKind::cuda ? "on the GPU" : "on the CPU");
  }
}

TEST_P(Golden, LossAndGradientsEqualHuggingFaceUnderEveryLayout) {
  int ranks = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  for (const Layout& layout : layouts(ranks)) {
    Case c(GetParam(), layout);
    SCOPED_TRACE(c.grid_.text() + (layout.device == DeviceKind::cuda ? ", GPU" : ", CPU"));
    const double expected = static_cast<double>(read_tensor<float>(c.golden_, "loss")[0]);
    const double loss = c.engine_->accumulate_gradients(c.first_batch());
    EXPECT_NEAR(loss, expected, 1e-6 * expected);
    const auto gradients =
        testing::whole_tensors(c.world_, c.runtime_->compute(), c.engine_->gradient_parts());
    EXPECT_EQ(gradients.size(), weight_specs(c.config_).size());
    for (const auto& [name, found] : gradients) {
      const auto reference = read_tensor<float>(c.golden_, "grad." + name);
      double square = 0, norm = 0;
      for (std::size_t i = 0; i < found.size(); ++i) {
        square += std::pow(found[i] - static_cast<double>(reference[i]), 2);
        norm += std::pow(static_cast<double>(reference[i]), 2);
      }
      EXPECT_LE(std::sqrt(square), 2e-5 * std::sqrt(norm)) << name;
    }
  }
}

TEST_P(Golden, TrainingStepsEqualHuggingFaceUnderEveryLayout) {
  int ranks = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  for (const Layout& layout : layouts(ranks)) {
    Case c(GetParam(), layout);
    SCOPED_TRACE(c.grid_.text() + (layout.device == DeviceKind::cuda ? ", GPU" : ", CPU"));
    const auto expected = read_tensor<float>(c.golden_, "steps.loss");
    for (std::int64_t i = 0; i < c.steps(); ++i) {
      const StepResult result = c.engine_->train_step(c.step_batch(i), i + 1, 1e-3);
      const double reference = static_cast<double>(expected[static_cast<std::size_t>(i)]);
      EXPECT_NEAR(result.loss, reference, 1e-5 * reference) << "step " << i + 1;
    }
  }
}

TEST_P(Golden, RecomputeKeepsEveryBit) {
  int ranks = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  for (DeviceKind device : devices(ranks)) {
    std::vector<std::vector<double>> losses;
    for (Recompute recompute : {Recompute::none, Recompute::selective, Recompute::full}) {
      Case c(GetParam(), {.device = device, .tensor = std::min(ranks, 2), .recompute = recompute});
      losses.emplace_back();
      for (std::int64_t i = 0; i < c.steps(); ++i) {
        const StepResult result = c.engine_->train_step(c.step_batch(i), i + 1, 1e-3);
        losses.back().push_back(result.loss);
        losses.back().push_back(result.grad_norm);
      }
    }
    EXPECT_EQ(losses[0], losses[1]);
    EXPECT_EQ(losses[0], losses[2]);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Golden, ::testing::ValuesIn(case_folders()), label);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Golden);

}  // namespace
}  // namespace verne
