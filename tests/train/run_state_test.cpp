#include "verne/train/run_state.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "small_engine.hpp"
#include "testing.hpp"

namespace verne {
namespace {

using Json = nlohmann::ordered_json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class RunState : public ::testing::Test {
 protected:
  RunState() {
    const auto file = directory.path() / "config.json";
    testing::write_text(file, testing::small_config_text("llama"));
    deck.model.config = file.string();
    deck.model.init = Init::random;
  }
  Json identity(const Deck& of, const std::vector<InputFingerprint>& inputs,
                const std::vector<InputFingerprint>& weights = {}) const {
    return run_identity(of, ModelSource::open(of.model, HostGroup(), [](const std::string&) {}), weights,
                        inputs);
  }
  Json identity(const Deck& of) const { return identity(of, {{.path = "here/a.h5", .sha256 = "aa"}}); }
  /// What is said of two decks' difference.
  std::string difference(const Json& stored, const Json& current) const {
    try {
      check_identity(stored, current, "runs/a/step_00000005.h5");
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  }
  template <class Change>
  std::string after(Change&& change) const {
    Deck other = deck;
    change(other);
    return difference(identity(deck), identity(other));
  }

  testing::TemporaryDirectory directory;
  Deck deck;
};

TEST_F(RunState, LayoutLimitsAndIntervalsMayDiffer) {
  EXPECT_EQ(after([](Deck&) {}), "");
  EXPECT_EQ(after([](Deck& d) {
              d.parallel.tensor = 4;
              d.parallel.sequence = Sequence::off;
              d.train.max_steps = 99;
              d.train.stop_step = 7;
              d.train.epochs = 3;
              d.train.micro_batch = 2;
              d.train.val_interval = 1;
              d.train.log_interval = 9;
              d.train.recompute = Recompute::full;
              d.checkpoint.interval = 3;
              d.checkpoint.keep = 9;
              d.checkpoint.async = true;
              d.run.threads = 3;
              d.run.device = Device::cpu;
              d.early_stopping.patience = 4;
            }),
            "");
}

TEST_F(RunState, DifferencesAreShownByKey) {
  const std::string text = after([](Deck& d) {
    d.optimizer.lr = 0.5;
    d.run.seed = 77;
  });
  EXPECT_THAT(text,
              AllOf(HasSubstr("runs/a/step_00000005.h5"), HasSubstr("belongs to another run"),
                    HasSubstr("checkpoint.resume=never"),
                    HasSubstr("\n  optimizer.lr: 5e-06 in the checkpoint, 0.5 now"),
                    HasSubstr("\n  run.seed: 1234 in the checkpoint, 77 now"), Not(HasSubstr("beta1"))));
  EXPECT_THAT(after([](Deck& d) { d.data.seq_length = 9; }),
              HasSubstr("data.seq_length: 2048 in the checkpoint, 9 now"));
  EXPECT_THAT(after([](Deck& d) { d.data.packing = false; }),
              HasSubstr("data.packing: true in the checkpoint, false now"));
  EXPECT_THAT(after([](Deck& d) { d.data.shuffle = false; }), HasSubstr("data.shuffle"));
  EXPECT_THAT(after([](Deck& d) { d.data.overlong = Overlong::drop; }), HasSubstr("data.overlong"));
  EXPECT_THAT(after([](Deck& d) { d.train.global_batch = 16; }),
              HasSubstr("train.global_batch: 8 in the checkpoint, 16 now"));
  EXPECT_THAT(after([](Deck& d) { d.model.dtype = ModelDType::fp32; }), HasSubstr("model.dtype"));
  for (double OptimizerSection::*key :
       {&OptimizerSection::min_lr, &OptimizerSection::beta1, &OptimizerSection::beta2, &OptimizerSection::eps,
        &OptimizerSection::weight_decay, &OptimizerSection::clip_grad})
    EXPECT_THAT(after([&](Deck& d) { d.optimizer.*key = 0.625; }), HasSubstr("0.625 now"));
  EXPECT_THAT(after([](Deck& d) { d.optimizer.warmup_steps = 3; }), HasSubstr("optimizer.warmup_steps: 50"));
  EXPECT_THAT(after([](Deck& d) { d.optimizer.schedule = Schedule::linear; }),
              HasSubstr("optimizer.schedule"));
}

TEST_F(RunState, ModelAndDataAreKnownByTheirContent) {
  const Json stored = identity(deck);
  EXPECT_EQ(difference(stored, identity(deck, {{.path = "there/a.h5", .sha256 = "aa"}})), "");
  EXPECT_THAT(difference(stored, identity(deck, {{.path = "here/a.h5", .sha256 = "bb"}})),
              HasSubstr("data.inputs.1 a.h5: \"aa\" in the checkpoint, \"bb\" now"));
  const std::string other = difference(stored, identity(deck, {{.path = "here/a.h5", .sha256 = "aa"},
                                                               {.path = "there/a.h5", .sha256 = "cc"}}));
  EXPECT_THAT(other, AllOf(HasSubstr("data.inputs.2 a.h5: absent in the checkpoint, \"cc\" now"),
                           Not(HasSubstr("1 a.h5"))));
  EXPECT_THAT(difference(identity(deck, {{.path = "b.h5", .sha256 = "aa"}}), stored),
              HasSubstr("data.inputs.1 b.h5: \"aa\" in the checkpoint, absent now"));
  const auto with_weights = [&](const char* path, const char* sha256) {
    return identity(deck, {{.path = "here/a.h5", .sha256 = "aa"}}, {{.path = path, .sha256 = sha256}});
  };
  EXPECT_EQ(difference(with_weights("x/model.safetensors", "ee"), with_weights("y/model.safetensors", "ee")),
            "");
  EXPECT_THAT(
      difference(with_weights("x/model.safetensors", "ee"), with_weights("x/model.safetensors", "ff")),
      HasSubstr("model.weights.1 model.safetensors: \"ee\" in the checkpoint, \"ff\" now"));
  testing::write_text(deck.model.config, testing::small_config_text("llama", 132));
  EXPECT_THAT(difference(stored, identity(deck)), HasSubstr("model.config"));
}

TEST_F(RunState, IdentitySurvivesItsJson) {
  deck.optimizer.lr = 0.1 + 0.2;  // needs all its digits
  EXPECT_EQ(difference(Json::parse(identity(deck).dump()), identity(deck)), "");
}

TEST(RunProgress, JsonRoundTrip) {
  RunProgress progress{.step = 12, .consumed_samples = 96, .consumed_tokens = 1'234'567'890'123};
  progress.best = {{.step = 8, .value = 0.1 + 0.2}, {.step = 4, .value = 1.0 / 3}};
  progress.best_value = 2.0 / 3;
  progress.validations_without_improvement = 2;
  progress.ended = true;
  const RunProgress back = RunProgress::from_json(Json::parse(progress.json().dump()), "file");
  EXPECT_EQ(back.step, 12);
  EXPECT_EQ(back.consumed_samples, 96);
  EXPECT_EQ(back.consumed_tokens, 1'234'567'890'123);
  ASSERT_EQ(back.best.size(), 2u);
  EXPECT_EQ(back.best[0].step, 8);
  EXPECT_EQ(back.best[0].value, 0.1 + 0.2);
  EXPECT_EQ(back.best[1].step, 4);
  EXPECT_EQ(back.best[1].value, 1.0 / 3);
  EXPECT_EQ(back.best_value, 2.0 / 3);
  EXPECT_EQ(back.validations_without_improvement, 2);
  EXPECT_TRUE(back.ended);

  const RunProgress fresh = RunProgress::from_json(RunProgress{}.json(), "file");
  EXPECT_EQ(fresh.step, 0);
  EXPECT_TRUE(fresh.best.empty());
  EXPECT_EQ(fresh.best_value, std::nullopt);
  EXPECT_FALSE(fresh.ended);
}

TEST(RunProgress, ForeignStateIsRefused) {
  const Json whole = RunProgress{.step = 3}.json();
  for (const char* key :
       {"step", "consumed_samples", "consumed_tokens", "ended", "best", "validations_without_improvement"}) {
    Json without = whole;
    without.erase(key);
    try {
      RunProgress::from_json(without, "x/step_00000003.h5");
      ADD_FAILURE() << key;
    } catch (const UserError& error) {
      EXPECT_THAT(error.what(), AllOf(HasSubstr("x/step_00000003.h5"),
                                      HasSubstr("not a training run's checkpoint"), HasSubstr(key)));
    }
  }
  Json wrong = whole;
  wrong["step"] = "three";
  EXPECT_THROW(RunProgress::from_json(wrong, "file"), UserError);
  wrong = whole;
  wrong["best"] = {{{"step", 1}}};
  EXPECT_THROW(RunProgress::from_json(wrong, "file"), UserError);
}

TEST(MonitorText, SaysDirection) {
  EXPECT_EQ(parse_monitor("val_loss:min").better, Monitor::Better::smaller);
  EXPECT_EQ(parse_monitor("val_loss:max").better, Monitor::Better::larger);
  for (const char* text : {"", ":", "val_loss", "val_loss:", "val_loss:least", "loss:min", "accuracy:max",
                           "val_loss:min:max", " val_loss:min"}) {
    try {
      parse_monitor(text);
      ADD_FAILURE() << text;
    } catch (const UserError& error) {
      EXPECT_THAT(error.what(), HasSubstr(fmt::format("checkpoint.monitor = {}:", text)));
    }
  }
}

TEST(MonitorText, ImprovementsBeatTheLeastDifference) {
  const Monitor least = parse_monitor("val_loss:min"), most = parse_monitor("val_loss:max");
  EXPECT_TRUE(least.improves(1.9, 2, 0));
  EXPECT_FALSE(least.improves(2, 2, 0));
  EXPECT_FALSE(least.improves(1.9, 2, 0.25));
  EXPECT_TRUE(least.improves(1.7, 2, 0.25));
  EXPECT_TRUE(most.improves(2.1, 2, 0));
  EXPECT_FALSE(most.improves(2, 2, 0));
  EXPECT_FALSE(most.improves(2.1, 2, 0.25));
  EXPECT_FALSE(least.improves(NAN, 2, 0));
}

}  // namespace
}  // namespace verne
