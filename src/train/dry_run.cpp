#include "verne/train/dry_run.hpp"

#include <iostream>

namespace verne {
namespace {

std::string batch_arithmetic(const Run& run) {
  const TrainSection& train = run.deck.train;
  const BatchCounts counts = run.data.train->counts(1);
  return fmt::format(
      "global batch {} rows = micro-batch {} x {} data ranks x {} accumulation steps, each row {} tokens\n"
      "{} rows in the data, {} steps an epoch, {} steps in all; the first batch has {} documents, {} tokens, "
      "{} of them trained\n",
      train.global_batch, train.micro_batch, run.layout.grid.sizes().data, run.layout.accumulation_steps,
      run.deck.data.seq_length, run.data.train->rows().size(), run.data.train->steps_in_epoch(),
      run.last_step, counts.documents, counts.real_tokens, counts.counted_tokens);
}

/// The documents of the rank's first micro-batch as text; trained tokens between « and ».
std::string decoded(const Run& run) {
  const MicroBatch batch = run.data.train->micro_batch(1, 0);
  std::string text;
  std::vector<TokenId> pending;
  bool trained = false;
  const auto flush = [&] {
    if (pending.empty()) return;
    const std::string piece = run.files.tokenizer ? run.files.tokenizer->decode(pending)
                                                  : fmt::format("{}", fmt::join(pending, " "));
    text += trained ? "«" + piece + "»" : piece;
    pending.clear();
  };
  std::int64_t shown = 0;
  const auto total = static_cast<std::int64_t>(batch.tokens.size());
  for (std::int64_t t = 0; t < total && shown < 2; ++t) {
    const auto i = static_cast<std::size_t>(t);
    if (batch.positions[i] == 0 && t > 0) {
      flush();
      text += "\n----\n";
      if (++shown == 2) break;
    }
    const bool counts = batch.positions[i] > 0 && batch.loss_mask[i - 1] != 0;
    if (counts != trained) flush();
    trained = counts;
    pending.push_back(static_cast<TokenId>(batch.tokens[i]));
  }
  flush();
  return text + "\n";
}

}  // namespace

void show_dry_run(const Run& run) {
  const std::string who = run.request.session.report_line(gpu_place(run.device, run.gpu()));
  if (!run.first_rank()) return;
  std::cout << run.request.used_inputs << "\n"
            << who << "\n"
            << run.layout.grid.text() << "\n\n"
            << fmt::format("{} parameters, {}\n", run.model.config().parameter_count(),
                           name(run.engine_options.dtype))
            << batch_arithmetic(run) << "\nmemory of rank 0\n"
            << memory_text(run.plan) << "\nfirst documents, trained tokens between « and »\n"
            << decoded(run) << std::flush;
}

}  // namespace verne
