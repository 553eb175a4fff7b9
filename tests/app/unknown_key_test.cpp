#include "verne/app/unknown_key.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "verne/app/option_table.hpp"

namespace verne {
namespace {

using ::testing::StartsWith;

TEST(UnknownKey, EditDistance) {
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
  EXPECT_EQ(edit_distance("lr", "LR"), 0);
  EXPECT_EQ(edit_distance("ab", "ba"), 1);
  EXPECT_EQ(edit_distance("", "abc"), 3);
}

TEST(UnknownKey, NearestKnownKey) {
  EXPECT_THAT(suggest_key("train.micro_bacth"), StartsWith("The nearest known key is train.micro_batch ("));
  EXPECT_THAT(suggest_key("optimiser.lr"), StartsWith("The nearest known key is optimizer.lr ("));
  EXPECT_THAT(suggest_key("train.lr"), StartsWith("The nearest known key is optimizer.lr ("));
  EXPECT_THAT(suggest_key("mode.path"), StartsWith("The nearest known key is model.path ("));
  EXPECT_THAT(suggest_key("max_steps"), StartsWith("The nearest known key is train.max_steps ("));
}

TEST(UnknownKey, WordsOfOtherPrograms) {
  const std::pair<const char*, const char*> words[] = {
      {"tensor_model_parallel_size", "parallel.tensor"},
      {"trainer.strategy.tensor_model_parallel_size", "parallel.tensor"},
      {"tensor-model-parallel-size", "parallel.tensor"},
      {"pipeline_model_parallel_size", "parallel.pipeline"},
      {"context_parallel_size", "parallel.context"},
      {"micro_batch_size", "train.micro_batch"},
      {"global_batch_size", "train.global_batch"},
      {"per_device_train_batch_size", "train.micro_batch"},
      {"gradient_accumulation_steps", "train.global_batch"},
      {"learning_rate", "optimizer.lr"},
      {"trainer.max_train_steps", "train.max_steps"},
      {"num_train_epochs", "train.epochs"},
      {"max_seq_length", "data.seq_length"},
      {"warmup_ratio", "optimizer.warmup_steps"},
      {"lr_scheduler_type", "optimizer.schedule"},
      {"save_steps", "checkpoint.interval"},
      {"val_check_interval", "train.val_interval"},
      {"bf16", "model.dtype"},
      {"train.gradient_checkpointing", "train.recompute"},
      {"output_dir", "run.dir"},
  };
  for (const auto& [word, key] : words)
    EXPECT_THAT(suggest_key(word), StartsWith(std::string("Write ") + key + " (")) << word;
  EXPECT_THAT(suggest_key("lora_r"), StartsWith("There is no such key: "));
}

TEST(UnknownKey, HostileKeys) {
  EXPECT_THAT(suggest_key(""), StartsWith("The nearest known key is "));
  EXPECT_THAT(suggest_key("."), StartsWith("The nearest known key is "));
  EXPECT_THAT(suggest_key(std::string(100000, 'x')), StartsWith("The nearest known key is "));
}

TEST(OptionTable, KeysAreUniqueAndComplete) {
  for (const Option& option : option_table()) {
    EXPECT_EQ(find_option(option.key()), &option) << option.key();
    EXPECT_FALSE(option.meaning.empty()) << option.key();
    EXPECT_FALSE(option.verbs.empty()) << option.key();
    EXPECT_FALSE(section_summary(option.section).empty()) << option.key();
  }
}

// What a key's default is written as sets that very default.
TEST(OptionTable, DefaultsReadBack) {
  for (const Option& option : option_table()) {
    Deck deck;
    const std::string standard = option.get(deck);
    if (standard.empty()) continue;
    option.set(deck, standard);
    EXPECT_EQ(option.get(deck), standard) << option.key();
  }
}

}  // namespace
}  // namespace verne
