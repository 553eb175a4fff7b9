#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "verne/base/log.hpp"
#include "verne/data/dataset.hpp"  // Overlong
#include "verne/nn/model.hpp"      // Recompute
#include "verne/nn/recompute.hpp"
#include "verne/optim/schedule.hpp"
#include "verne/text/chat_template.hpp"  // TrainOn

namespace verne {

// What a deck says: one plain struct a section, one member a key, under the key's name (a trailing underscore
// where the key is a C++ keyword). Values are in the range that the option table (app/option_table.hpp)
// allows; what depends on several keys, on files or on the number of ranks is checked by who uses it. Counts
// in which 0 switches a thing off say so. Empty strings and lists mean "not given".

enum class Device { automatic, cpu, cuda };
enum class Init { pretrained, random };
enum class ModelDType { bf16, fp32 };
enum class Sequence { automatic, on, off };
enum class ExportAtEnd { none, hf };
enum class ExportFormat { hf, peft };

struct RunSection {
  std::string dir;  ///< train's run directory
  Device device = Device::automatic;
  std::int64_t seed = 1234;
  bool deterministic = false;  ///< the same bits on every run of a layout, on GPUs too
  bool dry_run = false;
  LogLevel log_level = LogLevel::info;
  std::int64_t threads = 0;                 ///< CPU threads a rank; 0: cores / ranks on the node
  std::int64_t time_limit_s = 0;            ///< train stops in good order after so many seconds; 0: no limit
  std::int64_t collective_timeout_s = 600;  ///< a collective that takes longer ends the run; 0: no limit
};

struct ModelSection {
  std::string path;    ///< Hugging Face folder, hub id, checkpoint file or RUN@best|last|STEP
  std::string config;  ///< config.json of a model from random weights
  Init init = Init::pretrained;
  std::optional<ModelDType> dtype;  ///< absent: bf16; import keeps the source's
};

/// data = ranks / (tensor · pipeline · context).
struct ParallelSection {
  std::int64_t tensor = 1;
  std::int64_t pipeline = 1;
  std::int64_t context = 1;
  std::int64_t expert = 1;
  std::int64_t virtual_pipeline = 1;        ///< chunks of layers a stage
  Sequence sequence = Sequence::automatic;  ///< automatic: on where tensor > 1
};

struct DataSection {
  std::vector<std::string> train;  ///< token shards, JSONL files or folders of them
  std::vector<std::string> validation;
  std::int64_t seq_length = 2048;
  bool packing = true;
  bool shuffle = true;
  Overlong overlong = Overlong::error;
};

struct TrainSection {
  std::int64_t max_steps =
      0;              ///< 0: as many as `epochs` needs. Where both are given, the earlier ends the run.
  double epochs = 0;  ///< 0: as many as `max_steps` needs; both 0: one epoch
  std::int64_t stop_step = 0;      ///< ends in good order after this step (exit code 75); 0: no
  std::int64_t micro_batch = 1;    ///< sequences
  std::int64_t global_batch = 8;   ///< sequences, over all data ranks
  std::int64_t val_interval = 30;  ///< steps; 0: no validation
  std::int64_t val_batches = 0;    ///< global batches a validation; 0: all of the validation data
  bool val_at_start = true;
  std::int64_t log_interval = 1;  ///< steps; 0: the last step alone
  Recompute recompute = Recompute::none;
  ExportAtEnd export_ = ExportAtEnd::none;  ///< hf: ends with a Hugging Face folder, <run.dir>/hf
};

struct OptimizerSection {
  double lr = 5e-6;
  double min_lr = 0;
  std::int64_t warmup_steps = 50;
  Schedule schedule = Schedule::cosine;
  double beta1 = 0.9;
  double beta2 = 0.98;
  double eps = 1e-5;
  double weight_decay = 0.1;
  double clip_grad = 1.0;  ///< largest global gradient norm; 0: no clipping
};

struct PrepareSection {
  std::vector<std::string> input;
  std::string output;
  std::string tokenizer;
  std::string template_ = "auto";
  TrainOn train_on = TrainOn::all;
  std::vector<std::string> special_tokens;
  std::vector<double> split = {0.9, 0.05, 0.05};  ///< train, validation, test; sums to 1
  std::string split_key;
  std::string input_key;
  std::string output_key;
  std::int64_t limit = 0;  ///< records read; 0: all
  std::int64_t show = 0;   ///< samples shown; 0: none
};

struct TokenizeSection {
  std::string input;
  std::string output;
  std::string tokenizer;
};

struct ScoreSection {
  std::vector<std::string> input;
  std::string output;
  std::int64_t limit = 0;  ///< records; 0: all
};

struct ImportSection {
  std::string input;
  std::string output;
};

struct ExportSection {
  std::string checkpoint;  ///< a checkpoint file, a run directory or RUN@best|last|STEP
  std::string output;
  ExportFormat format = ExportFormat::hf;
};

struct CheckpointSection {
  std::int64_t interval = 100;  ///< steps; 0: at the end alone
  std::int64_t keep = 2;        ///< resumable checkpoints; 0: all
  std::int64_t keep_best = 1;   ///< weights-only checkpoints; 0: none
  std::string monitor = "val_loss:min";
  std::string resume = "auto";  ///< auto, never or a checkpoint file
  bool async = false;
};

struct EarlyStoppingSection {
  std::int64_t patience = 0;  ///< validations without an improvement; 0: off
  double min_delta = 0;
};

struct InspectSection {
  std::string input;
  std::string compare;
  bool verify = false;
};

struct Deck {
  RunSection run;
  ModelSection model;
  ParallelSection parallel;
  DataSection data;
  TrainSection train;
  OptimizerSection optimizer;
  PrepareSection prepare;
  TokenizeSection tokenize;
  ScoreSection score;
  ImportSection import_;
  ExportSection export_;
  CheckpointSection checkpoint;
  EarlyStoppingSection early_stopping;
  InspectSection inspect;
};

}  // namespace verne
