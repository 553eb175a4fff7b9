#include "verne/app/option_table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <concepts>
#include <utility>

#include "verne/app/option_value.hpp"

namespace verne {
namespace {

using Verbs = std::vector<Verb>;

// How an enum is spelled: its values in the order of its declaration.
using Choices = std::vector<std::string_view>;

const Verbs kEvery(verbs().begin(), verbs().end());
const Verbs kTrain = {Verb::train};
const Verbs kModel = {Verb::train, Verb::score};

struct Text {
  std::string unit, meaning;
};

/// Fills the table with the keys of one section.
template <class Section>
class SectionKeys {
 public:
  SectionKeys(std::vector<Option>& table, std::string section, Section Deck::*part, Verbs readers)
      : table_(table), section_(std::move(section)), part_(part), readers_(std::move(readers)) {}

  /// The keys from here on are read by these verbs.
  void read_by(Verbs readers) { readers_ = std::move(readers); }

  void text(std::string name, std::string Section::*member, std::string meaning, std::string type = "text") {
    add(
        std::move(name), std::move(type), "", "", std::move(meaning), member,
        [](std::string& to, std::string_view from) { to = from; },
        [](const std::string& value) { return value; });
  }
  void path(std::string name, std::string Section::*member, std::string meaning) {
    text(std::move(name), member, std::move(meaning), "path");
  }
  void choice(std::string name, std::string Section::*member, Choices choices, std::string meaning) {
    add(
        std::move(name), "choice", either(choices), "", std::move(meaning), member,
        [choices](std::string& to, std::string_view from) { to = choices[parse_choice(from, choices)]; },
        [](const std::string& value) { return value; });
  }
  template <class Enum>
  requires std::is_enum_v<Enum>
  void choice(std::string name, Enum Section::*member, Choices choices, std::string meaning) {
    add(
        std::move(name), "choice", either(choices), "", std::move(meaning), member,
        [choices](Enum& to, std::string_view from) { to = static_cast<Enum>(parse_choice(from, choices)); },
        [choices](Enum value) { return std::string(choices[static_cast<std::size_t>(value)]); });
  }
  template <class Enum>
  requires std::is_enum_v<Enum>
  void choice(std::string name, std::optional<Enum> Section::*member, Choices choices, std::string meaning) {
    add(
        std::move(name), "choice", either(choices), "", std::move(meaning), member,
        [choices](std::optional<Enum>& to, std::string_view from) {
          to = static_cast<Enum>(parse_choice(from, choices));
        },
        [choices](std::optional<Enum> value) {
          return value ? std::string(choices[static_cast<std::size_t>(*value)]) : std::string();
        });
  }
  void integer(std::string name, std::int64_t Section::*member, IntegerRange range, Text text) {
    add(
        std::move(name), "whole number", describe(range), std::move(text.unit), std::move(text.meaning),
        member, [range](std::int64_t& to, std::string_view from) { to = parse_integer(from, range); },
        [](std::int64_t value) { return fmt::format("{}", value); });
  }
  void number(std::string name, double Section::*member, NumberRange range, Text text) {
    add(
        std::move(name), "number", describe(range), std::move(text.unit), std::move(text.meaning), member,
        [range](double& to, std::string_view from) { to = parse_number(from, range); },
        [](double value) { return fmt::format("{}", value); });
  }
  void on_off(std::string name, bool Section::*member, std::string meaning) {
    add(
        std::move(name), "switch", "true or false", "", std::move(meaning), member,
        [](bool& to, std::string_view from) { to = parse_switch(from); },
        [](bool value) { return value ? "true" : "false"; });
  }
  void list(std::string name, std::vector<std::string> Section::*member, std::string meaning) {
    add(
        std::move(name), "list", "", "", std::move(meaning), member,
        [](std::vector<std::string>& to, std::string_view from) { to = parse_list(from); },
        [](const std::vector<std::string>& value) { return format_list(value); });
  }
  void shares(std::string name, std::vector<double> Section::*member, std::size_t count,
              std::string meaning) {
    const NumberRange range{0, 1};
    add(
        std::move(name), "list", fmt::format("{} numbers {}, which add up to 1", count, describe(range)), "",
        std::move(meaning), member,
        [range, count](std::vector<double>& to, std::string_view from) {
          std::vector<double> values;
          double sum = 0;
          for (const std::string& item : parse_list(from))
            sum += values.emplace_back(parse_number(item, range));
          if (values.size() != count || sum < 1 - 1e-6 || sum > 1 + 1e-6) {
            throw BadValue(fmt::format("expected {} numbers that add up to 1, as in 0.9,0.05,0.05", count));
          }
          to = std::move(values);
        },
        [](const std::vector<double>& value) { return fmt::format("{}", fmt::join(value, ",")); });
  }

 private:
  template <class Member, class Set, class Get>
  void add(std::string name, std::string type, std::string allowed, std::string unit, std::string meaning,
           Member Section::*member, Set set, Get get) {
    const auto part = part_;
    table_.push_back(
        {section_, std::move(name), std::move(type), std::move(allowed), std::move(unit), std::move(meaning),
         readers_, [part, member, set](Deck& deck, std::string_view from) { set(deck.*part.*member, from); },
         [part, member, get](const Deck& deck) -> std::string { return get(deck.*part.*member); }});
  }

  std::vector<Option>& table_;
  std::string section_;
  Section Deck::*part_;
  Verbs readers_;
};

constexpr IntegerRange kCount{0};
constexpr IntegerRange kPositive{1};
constexpr IntegerRange kRanks{1, 1 << 20};
constexpr NumberRange kNonNegative{0};
constexpr NumberRange kPositiveNumber{0, 1e300, Bound::excluded};
constexpr NumberRange kDecay{0, 1, Bound::included, Bound::excluded};

void add_run(std::vector<Option>& table) {
  SectionKeys keys(table, "run", &Deck::run, kTrain);
  keys.path("dir", &RunSection::dir,
            "the run directory; made with its parents. A run in it that was stopped continues");
  keys.read_by(kModel);
  keys.choice("device", &RunSection::device, {"auto", "cpu", "cuda"},
              "where to compute; auto: on GPUs where the node has them. The GPU is the rank within the node");
  keys.read_by({Verb::prepare, Verb::train});
  keys.integer("seed", &RunSection::seed, kCount, {"", "of the split, the shuffle and random weights"});
  keys.read_by(kTrain);
  keys.on_off("deterministic", &RunSection::deterministic,
              "the same bits every time on GPUs too, at some cost in speed; CPUs always do");
  keys.on_off("dry_run", &RunSection::dry_run,
              "shows the resolved deck, who runs where, the batch arithmetic, the memory and the first "
              "batch, and stops");
  keys.read_by(kEvery);
  keys.choice("log_level", &RunSection::log_level, {"debug", "info", "warning", "error"},
              "the least that is said");
  keys.integer("threads", &RunSection::threads, {0, 4096},
               {"", "CPU threads of a rank; 0: cores / ranks on the node"});
  keys.read_by(kTrain);
  keys.integer(
      "time_limit_s", &RunSection::time_limit_s, kCount,
      {"s", "stops in good order, with a checkpoint and exit code 75, after this time; 0: no limit"});
  keys.read_by(kModel);
  keys.integer(
      "collective_timeout_s", &RunSection::collective_timeout_s, kCount,
      {"s", "a collective that takes longer ends the run and says which ranks did not arrive; 0: no limit"});
}

void add_model(std::vector<Option>& table) {
  SectionKeys keys(table, "model", &Deck::model, kModel);
  keys.path("path", &ModelSection::path,
            "a Hugging Face folder, a hub id that the local Hugging Face cache holds, a checkpoint file or "
            "RUN@best, RUN@last or RUN@STEP");
  keys.read_by(kTrain);
  keys.path("config", &ModelSection::config, "the config.json of a model that starts from random weights");
  keys.choice("init", &ModelSection::init, {"pretrained", "random"},
              "pretrained: the weights of model.path; random: weights drawn by run.seed in the shape of "
              "model.config");
  keys.read_by({Verb::train, Verb::score, Verb::import});
  keys.choice("dtype", &ModelSection::dtype, {"bf16", "fp32"},
              "of weights and activations, bf16 where it is not given; import then keeps the source's");
}

void add_parallel(std::vector<Option>& table) {
  SectionKeys keys(table, "parallel", &Deck::parallel, kModel);
  keys.integer(
      "tensor", &ParallelSection::tensor, kRanks,
      {"ranks",
       "that share a layer's matrices; neighbours on a node. What is left of the ranks is data parallel"});
  keys.integer("pipeline", &ParallelSection::pipeline, kRanks,
               {"ranks", "stages that share the layers, cut so that each has about the same work"});
  keys.integer("virtual_pipeline", &ParallelSection::virtual_pipeline, kRanks,
               {"chunks", "of layers on each stage, interleaved: less waiting where micro-batches are few"});
  keys.integer("context", &ParallelSection::context, kRanks,
               {"ranks", "that share each sequence: for long ones"});
  keys.integer("expert", &ParallelSection::expert, kRanks,
               {"ranks", "that share the experts; only 1 in this version"});
  keys.choice("sequence", &ParallelSection::sequence, {"auto", "on", "off"},
              "tensor ranks also share activations between the matrices; auto: on where parallel.tensor > 1");
}

void add_data(std::vector<Option>& table) {
  SectionKeys keys(table, "data", &Deck::data, kTrain);
  keys.list(
      "train", &DataSection::train,
      "token shards (.h5), JSONL files, or folders of them. JSONL is prepared first, into <run.dir>/data");
  keys.list("validation", &DataSection::validation,
            "the same for validation; without it there is no val_loss");
  keys.integer("seq_length", &DataSection::seq_length, {2, 1 << 26}, {"tokens", "in a sequence"});
  keys.on_off(
      "packing", &DataSection::packing,
      "several documents share a sequence, without seeing each other; false: one document a sequence");
  keys.on_off("shuffle", &DataSection::shuffle,
              "a new order every epoch, by run.seed; false: the order of the records");
  keys.choice(
      "overlong", &DataSection::overlong, {"error", "drop", "truncate"},
      "what becomes of documents longer than data.seq_length; truncate cuts the prompt from its start, then "
      "the answer from its end");
}

void add_train(std::vector<Option>& table) {
  SectionKeys keys(table, "train", &Deck::train, kTrain);
  keys.integer(
      "max_steps", &TrainSection::max_steps, kCount,
      {"steps",
       "of the run; 0: as many as train.epochs takes. Where both are given, the earlier ends the run"});
  keys.number("epochs", &TrainSection::epochs, kNonNegative,
              {"", "passes over data.train; 0: as many as train.max_steps takes; both 0: one"});
  keys.integer("stop_step", &TrainSection::stop_step, kCount,
               {"", "stops in good order after this step, with a checkpoint and exit code 75; 0: does not"});
  keys.integer("micro_batch", &TrainSection::micro_batch, kPositive,
               {"sequences", "that go through the model at a time on a data rank"});
  keys.integer("global_batch", &TrainSection::global_batch, kPositive,
               {"sequences", "of a step, over all data ranks and accumulated micro-batches"});
  keys.integer("val_interval", &TrainSection::val_interval, kCount,
               {"steps", "between validations; 0: none"});
  keys.integer("val_batches", &TrainSection::val_batches, kCount,
               {"global batches", "of a validation; 0: all of data.validation"});
  keys.on_off("val_at_start", &TrainSection::val_at_start, "validates before the first step too");
  keys.integer("log_interval", &TrainSection::log_interval, kCount,
               {"steps", "between rows of metrics.csv and progress lines; 0: the last step alone"});
  keys.choice("recompute", &TrainSection::recompute, {"none", "selective", "full"},
              "activations that backward computes again instead of keeping: less memory, more time");
  keys.choice("export", &TrainSection::export_, {"none", "hf"},
              "hf: ends with a Hugging Face folder, <run.dir>/hf");
}

void add_optimizer(std::vector<Option>& table) {
  SectionKeys keys(table, "optimizer", &Deck::optimizer, kTrain);
  keys.number("lr", &OptimizerSection::lr, kNonNegative, {"", "the learning rate after warm-up"});
  keys.number("min_lr", &OptimizerSection::min_lr, kNonNegative, {"", "where the schedule ends"});
  keys.integer("warmup_steps", &OptimizerSection::warmup_steps, kCount,
               {"steps", "of a linear rise to optimizer.lr"});
  keys.choice("schedule", &OptimizerSection::schedule, {"cosine", "linear", "constant"},
              "the way from optimizer.lr to optimizer.min_lr after warm-up");
  keys.number("beta1", &OptimizerSection::beta1, kDecay, {"", "AdamW: decay of the first moment"});
  keys.number("beta2", &OptimizerSection::beta2, kDecay, {"", "AdamW: decay of the second moment"});
  keys.number("eps", &OptimizerSection::eps, kPositiveNumber,
              {"", "AdamW: added to the root of the second moment"});
  keys.number("weight_decay", &OptimizerSection::weight_decay, kNonNegative,
              {"", "AdamW: decoupled, on tensors of two or more dimensions"});
  keys.number("clip_grad", &OptimizerSection::clip_grad, kNonNegative,
              {"", "the largest global norm that a step's gradient may have; 0: any"});
}

void add_prepare(std::vector<Option>& table) {
  SectionKeys keys(table, "prepare", &Deck::prepare, {Verb::prepare});
  keys.list("input", &PrepareSection::input,
            "JSONL files, or folders with training, validation and test.jsonl");
  keys.path("output", &PrepareSection::output,
            "the folder for train.h5, validation.h5, test.h5 and certificate.json");
  const Verbs readers = {Verb::prepare, Verb::train, Verb::score};
  keys.read_by(readers);
  keys.path(
      "tokenizer", &PrepareSection::tokenizer,
      "a folder or a tokenizer.json; train and score take model.path's where it is not given, tokenized "
      "records need none");
  keys.choice("template", &PrepareSection::template_,
              {"auto", "qwen3", "chatml", "llama3", "mistral", "deepseek", "alpaca", "simple", "none"},
              "how a record becomes text; auto: by the model's family");
  keys.choice("train_on", &PrepareSection::train_on, {"all", "last"}, "which assistant turns are trained");
  keys.read_by({Verb::prepare, Verb::train});
  keys.list("special_tokens", &PrepareSection::special_tokens,
            "tokens to add to the tokenizer; the embedding grows to match");
  keys.shares("split", &PrepareSection::split, 3,
              "the shares of train, validation and test; a part may be 0. train splits JSONL so where "
              "data.validation is not given");
  keys.text("split_key", &PrepareSection::split_key,
            "a field (number or ISO 8601 time) by which later records go to later parts; without it run.seed "
            "decides");
  keys.read_by(readers);
  keys.text("input_key", &PrepareSection::input_key,
            "the field that holds the prompt, where it is none of the usual names");
  keys.text("output_key", &PrepareSection::output_key,
            "the field that holds the answer, where it is none of the usual names");
  keys.read_by({Verb::prepare, Verb::train});
  keys.integer("limit", &PrepareSection::limit, kCount, {"records", "read from the start; 0: all"});
  keys.read_by({Verb::prepare});
  keys.integer("show", &PrepareSection::show, kCount,
               {"samples", "shown decoded, trained and untrained tokens told apart; 0: none"});
}

void add_others(std::vector<Option>& table) {
  SectionKeys tokenize(table, "tokenize", &Deck::tokenize, {Verb::tokenize});
  tokenize.path("input", &TokenizeSection::input, "JSONL, a {\"text\"} a line");
  tokenize.path("output", &TokenizeSection::output, "JSONL, {\"ids\", \"with_special\", \"decoded\"} a line");
  tokenize.path("tokenizer", &TokenizeSection::tokenizer, "a folder or a tokenizer.json");

  SectionKeys score(table, "score", &Deck::score, {Verb::score});
  score.list("input", &ScoreSection::input, "JSONL, the records that prepare takes");
  score.path("output", &ScoreSection::output,
             "JSONL, {\"index\", \"tokens\", \"logprobs\", \"sum_logprob\", \"counted_tokens\"} a line, in "
             "the input's order");
  score.integer("limit", &ScoreSection::limit, kCount, {"records", "read from the start; 0: all"});

  SectionKeys import(table, "import", &Deck::import_, {Verb::import});
  import.path("input", &ImportSection::input, "a Hugging Face folder or a hub id that the local cache holds");
  import.path("output", &ImportSection::output, "the checkpoint, one .h5 file");

  SectionKeys exporting(table, "export", &Deck::export_, {Verb::export_});
  exporting.path(
      "checkpoint", &ExportSection::checkpoint,
      "a checkpoint file, a run directory (its best, else its last) or RUN@best, RUN@last or RUN@STEP");
  exporting.path("output", &ExportSection::output, "the Hugging Face folder");
  exporting.choice("format", &ExportSection::format, {"hf", "peft"},
                   "hf: a whole model; peft: an adapter, which this version has none of");

  SectionKeys checkpoint(table, "checkpoint", &Deck::checkpoint, kTrain);
  checkpoint.integer("interval", &CheckpointSection::interval, kCount,
                     {"steps", "between checkpoints; 0: at the end alone"});
  checkpoint.integer("keep", &CheckpointSection::keep, {0, 1 << 20},
                     {"checkpoints", "that a run can resume from, the newest ones; 0: all"});
  checkpoint.integer("keep_best", &CheckpointSection::keep_best, {0, 1 << 20},
                     {"checkpoints", "with weights alone, the best by checkpoint.monitor; 0: none"});
  checkpoint.text("monitor", &CheckpointSection::monitor,
                  "what makes a checkpoint the best one: val_loss:min or val_loss:max");
  checkpoint.text("resume", &CheckpointSection::resume,
                  "auto: from the newest whole checkpoint in run.dir; never: from the start, the "
                  "checkpoints in run.dir removed; or a checkpoint file");
  checkpoint.on_off("async", &CheckpointSection::async, "training goes on while a checkpoint is written");

  SectionKeys stopping(table, "early_stopping", &Deck::early_stopping, kTrain);
  stopping.integer("patience", &EarlyStoppingSection::patience, kCount,
                   {"validations", "without an improvement of checkpoint.monitor that end the run; 0: off"});
  stopping.number("min_delta", &EarlyStoppingSection::min_delta, kNonNegative,
                  {"", "the least that counts as an improvement"});

  SectionKeys inspect(table, "inspect", &Deck::inspect, {Verb::inspect});
  inspect.path("input", &InspectSection::input,
               "a checkpoint, a run, a token shard or a Hugging Face folder");
  inspect.path("compare", &InspectSection::compare, "another one: shows where the two differ");
  inspect.on_off("verify", &InspectSection::verify, "reads everything and checks every checksum");
}

std::vector<Option> make_table() {
  std::vector<Option> table;
  add_run(table);
  add_model(table);
  add_parallel(table);
  add_data(table);
  add_train(table);
  add_optimizer(table);
  add_prepare(table);
  add_others(table);
  return table;
}

}  // namespace

bool Option::read_by(Verb verb) const {
  return std::find(verbs.begin(), verbs.end(), verb) != verbs.end();
}

std::span<const Option> option_table() {
  static const std::vector<Option> table = make_table();
  return table;
}

const Option* find_option(std::string_view key) {
  for (const Option& option : option_table()) {
    if (option.key() == key) return &option;
  }
  return nullptr;
}

std::string_view section_summary(std::string_view section) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 14> kSummaries = {{
      {"run", "Where and how a run is made."},
      {"model", "The model to start from."},
      {"parallel", "How ranks share the work: data = ranks / (tensor · context · pipeline)."},
      {"data", "What is trained on."},
      {"train", "Steps, batches, validation."},
      {"optimizer", "AdamW and its learning rate."},
      {"prepare", "How records become tokens."},
      {"tokenize", "The verb tokenize."},
      {"score", "The verb score."},
      {"import", "The verb import."},
      {"export", "The verb export."},
      {"checkpoint", "When a run is saved, and what it resumes from."},
      {"early_stopping", "Ends a run that no longer improves."},
      {"inspect", "The verb inspect."},
  }};
  for (const auto& [name, summary] : kSummaries) {
    if (name == section) return summary;
  }
  return {};
}

}  // namespace verne
