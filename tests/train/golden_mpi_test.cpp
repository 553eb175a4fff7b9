// Small models against Hugging Face's own numbers under every layout of the ranks: on the CPU, and on GPUs
// where there are any, which ranks then share if they must.
#include <gtest/gtest.h>
#include <mpi.h>

#include <cmath>
#include <cstdlib>
#include <map>

#include "small_engine.hpp"
#include "testing.hpp"
#include "verne/comm/mpi_session.hpp"
#include "verne/host/hardware.hpp"
#include "verne/io/hf_folder.hpp"
#include "verne/io/load.hpp"
#include "verne/io/safetensors.hpp"
#include "verne/nn/model_tensors.hpp"

namespace verne {
namespace {

namespace fs = std::filesystem;
using testing::SmallLayout;
using Share = ParameterStore::Share;

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
/// Numbers whose dtype is the script's choice.
std::vector<std::int64_t> read_integers(const SafetensorsFile& file, const std::string& name) {
  if (file.find(name)->dtype == DType::i64) return read_tensor<std::int64_t>(file, name);
  if (file.find(name)->dtype == DType::i32) {
    const auto values = read_tensor<std::int32_t>(file, name);
    return {values.begin(), values.end()};
  }
  const auto values = read_tensor<std::uint8_t>(file, name);
  return {values.begin(), values.end()};
}

/// What a golden file holds of a batch: rows of equal length, of one document each or of several.
struct GoldenRows {
  std::int64_t count = 0, length = 0;
  std::vector<std::int64_t> mask;    ///< 1 where the token counts as a target
  std::vector<std::int64_t> starts;  ///< 1 where a document begins
  bool packed = false;

  explicit GoldenRows(const SafetensorsFile& file) {
    Shape shape;
    read_tensor<std::int64_t>(file, "input_ids", &shape);
    count = shape[0];
    length = shape[1];
    mask = read_integers(file, "loss_mask");
    packed = file.find("document_starts") != nullptr;
    if (packed) {
      starts = read_integers(file, "document_starts");
    } else {
      starts.resize(mask.size());
      for (std::int64_t r = 0; r < count; ++r) starts[static_cast<std::size_t>(r * length)] = 1;
    }
  }
  std::int64_t most_documents() const {
    std::int64_t most = 0;
    for (std::int64_t r = 0; r < count; ++r)
      most = std::max(most, std::accumulate(starts.begin() + r * length, starts.begin() + (r + 1) * length,
                                            std::int64_t{0}));
    return most;
  }
  std::int64_t counted() const {
    std::int64_t total = 0;
    for (std::size_t i = 0; i < mask.size(); ++i) total += starts[i] == 0 && mask[i] != 0;
    return total;
  }

  /// Rows [first, first + shape.rows) with these tokens.
  MicroBatch micro_batch(std::span<const std::int64_t> ids, std::int64_t first,
                         const MicroBatchShape& shape) const {
    MicroBatch batch = blank_micro_batch(shape);
    std::vector<std::int32_t> documents;
    for (std::int64_t r = 0; r < shape.rows; ++r) {
      std::int32_t position = 0;
      for (std::int64_t t = 0; t < shape.seq_length; ++t) {
        const auto at = static_cast<std::size_t>(r * shape.seq_length + t);
        const auto from = static_cast<std::size_t>((first + r) * length + t);
        // In a packed batch the padding is a document of its own.
        const bool begins = t < length ? starts[from] != 0 : t == length && packed;
        if (begins) documents.push_back(static_cast<std::int32_t>(at));
        position = begins ? 0 : position + 1;
        batch.positions[at] = position;
        if (t >= length) continue;
        batch.tokens[at] = static_cast<std::int32_t>(ids[from]);
        if (t + 1 >= length || starts[from + 1] != 0) continue;
        batch.targets[at] = static_cast<std::int32_t>(ids[from + 1]);
        batch.loss_mask[at] = static_cast<std::uint8_t>(mask[from + 1]);
      }
    }
    std::fill(batch.document_starts.begin(), batch.document_starts.end(),
              static_cast<std::int32_t>(batch.tokens.size()));
    std::copy(documents.begin(), documents.end(), batch.document_starts.begin());
    return batch;
  }
};

/// Where a case runs.
struct Setting {
  SmallLayout layout;
  DeviceKind device = DeviceKind::cpu;
  std::string text() const { return layout.text() + (device == DeviceKind::cuda ? ", GPU" : ", CPU"); }
};

/// One golden case under one layout of all ranks; the batch's rows are dealt out to the data ranks.
class Case {
 public:
  Case(const fs::path& folder, const Setting& setting)
      : folder_(folder),
        golden_(folder / "golden.safetensors"),
        config_(parse_model_config(folder_.config_text(), "config.json")),
        rows_(golden_),
        layout_(setting.layout.on(world().rank(), world().size())) {
    ids_ = read_tensor<std::int64_t>(golden_, "input_ids");
    steps_ = read_tensor<std::int64_t>(golden_, "steps.input_ids");
    const std::int64_t micro = setting.layout.micro_batch, own = rows_.count / layout_.grid.sizes().data;
    shape_ = {.rows = micro,
              .seq_length = padded_length(layout_, rows_.length),
              .table = rows_.packed ? DocumentTable::packed : DocumentTable::uniform,
              .document_capacity = rows_.packed ? micro * (rows_.most_documents() + 1) : micro};
    const EngineOptions options{
        .host = {.dtype = DType::f32,
                 .recompute = setting.layout.recompute,
                 .batch = shape_,
                 .micro_batches = own / micro,
                 .bucket_elements = 20'000,
                 .trains = {}},
        .optimizer = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .clip_grad = 0}};
    const Machine machine =
        choose_machine(setting.device == DeviceKind::cuda ? Device::cuda : Device::cpu, session(), 1);
    runtime_.emplace(make_runtime(world(), layout_, config_, machine, Determinism::deterministic, nullptr));
    engine_.emplace(config_, *runtime_, options, Engine::plan(config_, layout_, options).arenas);
    load_parts(folder_, world(), runtime_->compute(), engine_->host().loadable_parts(DType::f32));
    engine_->host().weights_loaded();
    engine_->weights_changed();
  }

  static const MpiSession& session() {
    static const MpiSession session;
    return session;
  }
  static const HostGroup& world() { return session().world(); }

  StepBatch batch(std::span<const std::int64_t> ids) const {
    const std::int64_t data = layout_.grid.sizes().data, rank = layout_.grid.data(), micro = shape_.rows;
    return {.counted_tokens = rows_.counted(),
            .micro_batches = rows_.count / data / micro,
            .micro_batch = [this, ids, data, rank, micro](std::int64_t i) {
              return rows_.micro_batch(ids, (i * data + rank) * micro, shape_);
            }};
  }
  StepBatch first_batch() const { return batch(ids_); }
  std::int64_t steps() const { return static_cast<std::int64_t>(steps_.size() / ids_.size()); }
  StepBatch step_batch(std::int64_t i) const {
    return batch(std::span(steps_).subspan(static_cast<std::size_t>(i) * ids_.size(), ids_.size()));
  }
  StepResult step(std::int64_t i) {
    engine_->train_step(step_batch(i), i + 1, 1e-3);
    return engine_->read_step();
  }

  HfFolder folder_;
  SafetensorsFile golden_;
  ModelConfig config_;
  GoldenRows rows_;
  ParallelLayout layout_;
  MicroBatchShape shape_;
  std::vector<std::int64_t> ids_, steps_;
  std::optional<ParallelRuntime> runtime_;
  std::optional<Engine> engine_;
};

/// Every case in float32 of a dense model that has steps.
std::vector<fs::path> case_folders() {
  std::vector<fs::path> folders;
  std::vector<fs::path> roots = {testing::golden_dir() / "models"};
  if (const auto shared = testing::shared_dir()) roots.push_back(*shared / "golden");
  for (const fs::path& root : roots) {
    std::vector<fs::path> found;
    for (const auto& entry : fs::directory_iterator(root)) {
      const fs::path config = entry.path() / "config.json";
      if (!fs::exists(config) || !fs::exists(entry.path() / "golden.safetensors")) continue;
      if (!SafetensorsFile(entry.path() / "golden.safetensors").find("steps.loss")) continue;
      try {
        parse_model_config(testing::read_text(config), config.string());
        found.push_back(entry.path());
      } catch (const UserError&) {
        // not dense
      }
    }
    std::sort(found.begin(), found.end());
    folders.insert(folders.end(), found.begin(), found.end());
  }
  return folders;
}

std::vector<DeviceKind> devices() {
  std::vector<DeviceKind> all;
  const char* only = std::getenv("VERNE_TEST_DEVICE");  // "cuda": leave the CPU out
  if (!only || std::string_view(only) != "cuda") all.push_back(DeviceKind::cpu);
  if (visible_gpus() > 0) all.push_back(DeviceKind::cuda);
  return all;
}

/// Whether the environment asks for a layout: VERNE_TEST_LAYOUTS=tp2pp2,cp2,pp2x2; all where it does not say.
bool wanted(const SmallLayout& layout) {
  const char* only = std::getenv("VERNE_TEST_LAYOUTS");
  if (!only) return true;
  std::string name;
  for (const auto& [axis, size] :
       {std::pair{"tp", layout.tensor}, {"cp", layout.context}, {"pp", layout.pipeline}})
    if (size > 1) name += fmt::format("{}{}", axis, size);
  if (layout.chunks > 1) name += fmt::format("x{}", layout.chunks);
  return fmt::format(",{},", only).find(fmt::format(",{},", name)) != std::string::npos;
}

/// Every product that divides the ranks and leaves no more data ranks than there are rows; where tensor ranks
/// are, with and without sequence parallelism.
std::vector<Setting> settings(int ranks, const ModelConfig& config, std::int64_t rows) {
  std::vector<Setting> all;
  for (const DeviceKind device : devices())
    for (const SmallLayout& layout : testing::small_layouts(ranks, config)) {
      if (ranks / (layout.tensor * layout.context * layout.pipeline) > rows || !wanted(layout)) continue;
      all.push_back({.layout = layout, .device = device});
      if (layout.tensor == 1 || layout.pipeline > 1) continue;
      all.push_back(all.back());
      all.back().layout.sequence = TensorParallel::Sequence::whole;
    }
  return all;
}
std::vector<Setting> settings_of(const fs::path& folder) {
  const HfFolder model(folder);
  return settings(Case::world().size(), parse_model_config(model.config_text(), "config.json"),
                  GoldenRows(SafetensorsFile(folder / "golden.safetensors")).count);
}

class Golden : public ::testing::TestWithParam<fs::path> {};

std::string label(const ::testing::TestParamInfo<fs::path>& info) {
  const bool own = info.param.string().find(testing::golden_dir().string()) == 0;
  return (own ? "own_" : "shared_") + info.param.filename().string();
}

/// Logits of row and position, in Hugging Face's order, under every layout: each rank of the last stage
/// compares its block of the vocabulary.
TEST_P(Golden, LogitsEqualHuggingFace) {
  for (const Setting& setting : settings_of(GetParam())) {
    Case c(GetParam(), setting);
    SCOPED_TRACE(setting.text());
    const auto expected = read_tensor<float>(c.golden_, "logits");
    const std::int64_t vocabulary = c.config_.vocab_size, length = c.rows_.length;
    std::vector<std::int64_t> places;  // (row, position) of each of the file's rows
    if (c.golden_.find("sampled")) {
      places = read_integers(c.golden_, "sampled");
    } else {
      for (std::int64_t i = 0; i < c.rows_.count * length; ++i)
        for (const std::int64_t part : {i / length, i % length}) places.push_back(part);
    }
    float largest = 0, difference = 0;
    for (const float value : expected) largest = std::max(largest, std::abs(value));
    for (std::int64_t row = 0; row < c.rows_.count; ++row) {
      const std::vector<float> found = c.engine_->host().logits(c.rows_.micro_batch(c.ids_, row, c.shape_));
      if (found.empty()) continue;
      const std::int64_t columns = c.engine_->host().logit_columns();
      const VocabularyBlock block =
          vocabulary_block(vocabulary, c.layout_.grid.tensor(), c.layout_.grid.sizes().tensor);
      for (std::size_t i = 0; i < places.size() / 2; ++i) {
        if (places[2 * i] != row) continue;
        for (std::int64_t v = 0; v < block.valid; ++v)
          difference = std::max(difference,
                                std::abs(expected[i * static_cast<std::size_t>(vocabulary) +
                                                  static_cast<std::size_t>(block.first + v)] -
                                         found[static_cast<std::size_t>(places[2 * i + 1] * columns + v)]));
      }
    }
    EXPECT_LE(difference, 5e-6f * largest);
  }
}

TEST_P(Golden, LossAndGradientsEqualHuggingFaceUnderEveryLayout) {
  for (const Setting& setting : settings_of(GetParam())) {
    Case c(GetParam(), setting);
    SCOPED_TRACE(setting.text());
    const double expected = static_cast<double>(read_tensor<float>(c.golden_, "loss")[0]);
    const double loss = c.engine_->accumulate_gradients(c.first_batch());
    EXPECT_NEAR(loss, expected, 1e-6 * expected);
    const auto gradients = testing::whole_tensors(c.world(), c.runtime_->compute(),
                                                  c.engine_->host().store().gradient_parts(Share::counted));
    EXPECT_EQ(gradients.size(), model_tensors(c.config_).size());
    for (const auto& [name, found] : gradients) {
      const auto reference = read_tensor<float>(c.golden_, "grad." + name);
      EXPECT_LE(testing::distance(found, {reference.begin(), reference.end()}), 2e-5) << name;
    }
  }
}

TEST_P(Golden, TrainingStepsEqualHuggingFaceUnderEveryLayout) {
  for (const Setting& setting : settings_of(GetParam())) {
    Case c(GetParam(), setting);
    SCOPED_TRACE(setting.text());
    const auto expected = read_tensor<float>(c.golden_, "steps.loss");
    for (std::int64_t i = 0; i < c.steps(); ++i) {
      const double reference = static_cast<double>(expected[static_cast<std::size_t>(i)]);
      EXPECT_NEAR(c.step(i).loss, reference, 1e-5 * reference) << "step " << i + 1;
    }
  }
}

TEST_P(Golden, RecomputeKeepsEveryBit) {
  for (Setting setting : settings_of(GetParam())) {
    SCOPED_TRACE(setting.text());
    std::vector<std::vector<double>> losses;
    for (Recompute recompute : {Recompute::none, Recompute::selective, Recompute::full}) {
      setting.layout.recompute = recompute;
      Case c(GetParam(), setting);
      losses.emplace_back();
      for (std::int64_t i = 0; i < std::min<std::int64_t>(c.steps(), 3); ++i) {
        const StepResult result = c.step(i);
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
