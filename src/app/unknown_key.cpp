#include "verne/app/unknown_key.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <vector>

#include "verne/app/option_table.hpp"

namespace verne {
namespace {

/// A word of NeMo (2.0 and 1.x), Megatron-LM, Hugging Face transformers and TRL, axolotl or torchtitan.
struct ForeignWord {
  std::string_view word;
  std::string_view key;   ///< empty: there is no such thing here
  std::string_view note;  ///< what is different; empty: nothing
};

constexpr std::string_view kSteps =
    "train.global_batch counts the sequences of a whole step: micro_batch · data ranks · accumulation steps";
constexpr std::string_view kNoLora = "this version trains all weights and has no adapters";

constexpr ForeignWord kWords[] = {
    {"tensor_model_parallel_size", "parallel.tensor", ""},
    {"tensor_parallel_size", "parallel.tensor", ""},
    {"tensor_parallel_degree", "parallel.tensor", ""},
    {"tensor_parallelism", "parallel.tensor", ""},
    {"tp", "parallel.tensor", ""},
    {"tp_size", "parallel.tensor", ""},
    {"pipeline_model_parallel_size", "parallel.pipeline", ""},
    {"pipeline_parallel_size", "parallel.pipeline", ""},
    {"pipeline_parallel_degree", "parallel.pipeline", ""},
    {"pipeline_parallelism", "parallel.pipeline", ""},
    {"pp", "parallel.pipeline", ""},
    {"virtual_pipeline_model_parallel_size", "parallel.virtual_pipeline", ""},
    {"num_layers_per_virtual_pipeline_stage", "parallel.virtual_pipeline", "it counts chunks, not layers"},
    {"context_parallel_size", "parallel.context", ""},
    {"context_parallel_degree", "parallel.context", ""},
    {"cp", "parallel.context", ""},
    {"expert_model_parallel_size", "parallel.expert", ""},
    {"expert_parallel_degree", "parallel.expert", ""},
    {"ep", "parallel.expert", ""},
    {"sequence_parallel", "parallel.sequence", "auto, on or off"},
    {"data_parallel_size", "", "data parallelism is what is left: ranks / (tensor · context · pipeline)"},
    {"data_parallel_shard_degree", "",
     "data parallelism is what is left: ranks / (tensor · context · pipeline)"},
    {"data_parallel_replicate_degree", "",
     "data parallelism is what is left: ranks / (tensor · context · pipeline)"},
    {"num_nodes", "",
     "the launcher (mpirun, srun) says how many ranks there are; parallel.tensor says how many share a "
     "layer"},
    {"num_gpus_per_node", "",
     "the launcher (mpirun, srun) says how many ranks there are; parallel.tensor says how many share a "
     "layer"},
    {"devices", "",
     "the launcher (mpirun, srun) says how many ranks there are; parallel.tensor says how many share a "
     "layer"},
    {"micro_batch_size", "train.micro_batch", ""},
    {"per_device_train_batch_size", "train.micro_batch", ""},
    {"local_batch_size", "train.micro_batch", ""},
    {"batch_size", "train.global_batch", "train.micro_batch is what a data rank computes at a time"},
    {"global_batch_size", "train.global_batch", ""},
    {"train_batch_size", "train.global_batch", ""},
    {"gradient_accumulation_steps", "train.global_batch", kSteps},
    {"accumulate_grad_batches", "train.global_batch", kSteps},
    {"per_device_eval_batch_size", "train.micro_batch", "validation uses the batches of training"},
    {"max_train_steps", "train.max_steps", ""},
    {"train_iters", "train.max_steps", ""},
    {"steps", "train.max_steps", ""},
    {"num_train_epochs", "train.epochs", ""},
    {"num_epochs", "train.epochs", ""},
    {"max_epochs", "train.epochs", ""},
    {"exit_interval", "train.stop_step", ""},
    {"seq_len", "data.seq_length", ""},
    {"max_seq_length", "data.seq_length", ""},
    {"max_seq_len", "data.seq_length", ""},
    {"max_length", "data.seq_length", ""},
    {"sequence_len", "data.seq_length", ""},
    {"sequence_length", "data.seq_length", ""},
    {"encoder_seq_length", "data.seq_length", ""},
    {"model_max_length", "data.seq_length", ""},
    {"packed_sequence", "data.packing", ""},
    {"packed_sequence_size", "data.seq_length", "with data.packing=true a sequence is packed to this length"},
    {"sample_packing", "data.packing", ""},
    {"dataset", "data.train", ""},
    {"dataset_root", "data.train", "a folder with training.jsonl will do"},
    {"datasets", "data.train", ""},
    {"train_file", "data.train", ""},
    {"train_ds", "data.train", ""},
    {"data_path", "data.train", ""},
    {"train_data_path", "data.train", ""},
    {"validation_file", "data.validation", ""},
    {"validation_ds", "data.validation", ""},
    {"eval_dataset", "data.validation", ""},
    {"valid_data_path", "data.validation", ""},
    {"truncation_method", "data.overlong", "error, drop or truncate"},
    {"learning_rate", "optimizer.lr", ""},
    {"max_lr", "optimizer.lr", ""},
    {"min_learning_rate", "optimizer.min_lr", ""},
    {"warmup_iters", "optimizer.warmup_steps", ""},
    {"lr_warmup_iters", "optimizer.warmup_steps", ""},
    {"num_warmup_steps", "optimizer.warmup_steps", ""},
    {"warmup_ratio", "optimizer.warmup_steps", "it counts steps: the ratio times train.max_steps"},
    {"lr_warmup_fraction", "optimizer.warmup_steps", "it counts steps: the fraction times train.max_steps"},
    {"lr_scheduler_type", "optimizer.schedule", "cosine, linear or constant"},
    {"lr_scheduler", "optimizer.schedule", "cosine, linear or constant"},
    {"lr_decay_style", "optimizer.schedule", "cosine, linear or constant"},
    {"decay_type", "optimizer.schedule", "cosine, linear or constant"},
    {"lr_decay_iters", "train.max_steps", "the schedule ends with the run"},
    {"adam_beta1", "optimizer.beta1", ""},
    {"adam_beta2", "optimizer.beta2", ""},
    {"betas", "optimizer.beta1", "and optimizer.beta2"},
    {"adam_eps", "optimizer.eps", ""},
    {"adam_epsilon", "optimizer.eps", ""},
    {"wd", "optimizer.weight_decay", ""},
    {"gradient_clip_val", "optimizer.clip_grad", ""},
    {"max_grad_norm", "optimizer.clip_grad", ""},
    {"max_norm", "optimizer.clip_grad", ""},
    {"grad_clip", "optimizer.clip_grad", ""},
    {"val_check_interval", "train.val_interval", ""},
    {"eval_interval", "train.val_interval", ""},
    {"eval_steps", "train.val_interval", ""},
    {"eval_iters", "train.val_batches", ""},
    {"limit_val_batches", "train.val_batches", ""},
    {"eval_on_start", "train.val_at_start", ""},
    {"num_sanity_val_steps", "train.val_at_start", "true or false"},
    {"logging_steps", "train.log_interval", ""},
    {"log_every_n_steps", "train.log_interval", ""},
    {"log_freq", "train.log_interval", ""},
    {"save_steps", "checkpoint.interval", ""},
    {"save_interval", "checkpoint.interval", ""},
    {"every_n_train_steps", "checkpoint.interval", ""},
    {"save_total_limit", "checkpoint.keep", ""},
    {"keep_latest_k", "checkpoint.keep", ""},
    {"save_top_k", "checkpoint.keep_best", ""},
    {"metric_for_best_model", "checkpoint.monitor", "val_loss:min"},
    {"load_best_model_at_end", "checkpoint.keep_best", "RUN@best names the best one"},
    {"resume_from_checkpoint", "checkpoint.resume", "auto, never or a checkpoint file"},
    {"resume_if_exists", "checkpoint.resume", "auto does"},
    {"resume_from_path", "checkpoint.resume", ""},
    {"async_save", "checkpoint.async", ""},
    {"async_mode", "checkpoint.async", "true or false"},
    {"ckpt_async_save", "checkpoint.async", ""},
    {"early_stopping_patience", "early_stopping.patience", ""},
    {"early_stopping_threshold", "early_stopping.min_delta", ""},
    {"bf16", "model.dtype", "bf16, which it is unless you say fp32"},
    {"fp16", "model.dtype", "bf16 or fp32"},
    {"fp32", "model.dtype", "bf16 or fp32"},
    {"precision", "model.dtype", "bf16 or fp32"},
    {"torch_dtype", "model.dtype", "bf16 or fp32"},
    {"params_dtype", "model.dtype", "bf16 or fp32"},
    {"mixed_precision_param", "model.dtype", "bf16 or fp32"},
    {"model_name_or_path", "model.path", ""},
    {"base_model", "model.path", ""},
    {"restore_from_path", "model.path", ""},
    {"hf_model_path", "model.path", ""},
    {"hf_assets_path", "model.path", ""},
    {"pretrained_checkpoint", "model.path", ""},
    {"load", "model.path", ""},
    {"config_name", "model.config", ""},
    {"tokenizer_name", "prepare.tokenizer", ""},
    {"tokenizer_path", "prepare.tokenizer", ""},
    {"tokenizer_model", "prepare.tokenizer", "a folder or a tokenizer.json"},
    {"chat_template", "prepare.template", ""},
    {"prompt_template", "prepare.template", ""},
    {"train_on_inputs", "prepare.train_on", "all or last: which answers are trained; prompts never are"},
    {"answer_only_loss", "prepare.train_on", "all or last: which answers are trained; prompts never are"},
    {"completion_only_loss", "prepare.train_on", "all or last: which answers are trained; prompts never are"},
    {"label_key", "prepare.output_key", ""},
    {"val_set_size", "prepare.split", "three shares, as in 0.9,0.05,0.05"},
    {"output_dir", "run.dir", ""},
    {"dump_folder", "run.dir", ""},
    {"exp_dir", "run.dir", ""},
    {"explicit_log_dir", "run.dir", ""},
    {"save", "run.dir", "checkpoints are in its folder checkpoints"},
    {"logging_dir", "run.dir", "event files are there"},
    {"random_seed", "run.seed", ""},
    {"data_seed", "run.seed", ""},
    {"full_determinism", "run.deterministic", ""},
    {"deterministic_mode", "run.deterministic", ""},
    {"max_time", "run.time_limit_s", "in seconds"},
    {"max_time_per_run", "run.time_limit_s", "in seconds"},
    {"exit_duration_in_mins", "run.time_limit_s", "in seconds"},
    {"distributed_timeout_minutes", "run.collective_timeout_s", "in seconds"},
    {"ddp_timeout", "run.collective_timeout_s", ""},
    {"gradient_checkpointing", "train.recompute", "none, selective or full"},
    {"activation_checkpointing", "train.recompute", "none, selective or full"},
    {"activations_checkpoint_granularity", "train.recompute", "none, selective or full"},
    {"recompute_granularity", "train.recompute", "none, selective or full"},
    {"recompute_activations", "train.recompute", "none, selective or full"},
    {"use_distributed_optimizer", "", "the optimizer's state is always shared among the data ranks"},
    {"deepspeed", "", "the optimizer's state is always shared among the data ranks"},
    {"fsdp", "", "the optimizer's state is always shared among the data ranks"},
    {"optim", "", "the optimizer is AdamW; [optimizer] has its keys"},
    {"flash_attention", "", "attention on GPUs is always fused"},
    {"attn_implementation", "", "attention on GPUs is always fused"},
    {"lora_r", "", kNoLora},
    {"lora_alpha", "", kNoLora},
    {"lora_dropout", "", kNoLora},
    {"lora_target_modules", "", kNoLora},
    {"target_modules", "", kNoLora},
    {"peft_scheme", "", kNoLora},
    {"use_peft", "", kNoLora},
    {"load_in_4bit", "", kNoLora},
    {"load_in_8bit", "", kNoLora},
    {"adapter", "", kNoLora},
};

std::string normalized(std::string_view text) {
  std::string result;
  for (const char c : text) {
    result += c == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return result;
}

std::string what_it_is(const Option& option) {
  return option.unit.empty() ? option.meaning : fmt::format("{} {}", option.unit, option.meaning);
}

std::string sentence_for(const Option& option, std::string_view note) {
  if (note.empty()) return fmt::format("Write {} ({}).", option.key(), what_it_is(option));
  return fmt::format("Write {} ({}).", option.key(), note);
}

}  // namespace

std::int64_t edit_distance(std::string_view left, std::string_view right) {
  const std::string a = normalized(left.substr(0, 200)), b = normalized(right.substr(0, 200));
  // Optimal string alignment; three rows of the table.
  std::vector<std::int64_t> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) last[j] = static_cast<std::int64_t>(j);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = static_cast<std::int64_t>(i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], before[j - 2] + 1);
    }
    std::swap(before, last);
    std::swap(last, row);
  }
  return last[b.size()];
}

std::string_view nearest(std::string_view text, std::span<const std::string_view> candidates) {
  return *std::min_element(candidates.begin(), candidates.end(), [text](auto a, auto b) {
    return edit_distance(text, a) < edit_distance(text, b);
  });
}

std::string suggest_key(std::string_view unknown) {
  const std::string whole = normalized(unknown);
  const std::string last = whole.substr(whole.find_last_of("./") + 1);
  const Option* by_distance = nullptr;
  std::int64_t distance = INT64_MAX;
  const Option* by_name = nullptr;  // the same name in another section
  for (const Option& option : option_table()) {
    if (option.name == last &&
        (!by_name || edit_distance(whole, option.key()) < edit_distance(whole, by_name->key()))) {
      by_name = &option;
    }
    const std::int64_t each =
        whole.find('.') == std::string::npos
            ? std::min(edit_distance(whole, option.name), edit_distance(whole, option.key()))
            : edit_distance(whole, option.key());
    if (each < distance) {
      distance = each;
      by_distance = &option;
    }
  }
  for (const ForeignWord& foreign : kWords) {
    if (foreign.word != last) continue;
    if (foreign.key.empty()) return fmt::format("There is no such key: {}.", foreign.note);
    return sentence_for(*find_option(foreign.key), foreign.note);
  }
  if (by_name) by_distance = by_name;
  return fmt::format("The nearest known key is {} ({}).", by_distance->key(), what_it_is(*by_distance));
}

}  // namespace verne
