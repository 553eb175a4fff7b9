#include "verne/data/batches.hpp"

#include <algorithm>
#include <memory>
#include <utility>

#include "verne/base/error.hpp"

namespace verne {
namespace {

RowTable make_rows(const TokenDataset& dataset, const BatchOptions& options) {
  const auto file = [&] {
    return dataset.shards().empty() ? "no shard" : dataset.shards().front().path().string();
  };
  require_user(dataset.size() > 0, "{}: no document is left to train on ({})", file(), dataset.summary());
  if (options.packing == Packing::no) return one_document_a_row(dataset.size());
  const PackingOrder order =
      options.shuffle == Shuffle::yes ? PackingOrder::shuffled : PackingOrder::as_given;
  return pack_first_fit(dataset.lengths(), options.seq_length, order, options.seed);
}

MicroBatchShape make_shape(const RowTable& rows, const BatchOptions& options) {
  const std::int64_t padded = options.padded_seq_length > 0 ? options.padded_seq_length : options.seq_length;
  require(padded >= options.seq_length, "a sequence length of {} padded to {}", options.seq_length, padded);
  const DocumentTable table =
      options.packing == Packing::yes ? DocumentTable::packed : DocumentTable::uniform;
  return {options.micro_batch, padded, table, document_capacity(rows, options.micro_batch, table)};
}

}  // namespace

Batches::Batches(TokenDataset dataset, const BatchOptions& options)
    : options_(options),
      dataset_(std::move(dataset)),
      rows_(make_rows(dataset_, options_)),
      sampler_(rows_.size(), options_.global_batch, options_.shuffle, options_.seed),
      shape_(make_shape(rows_, options_)) {
  require(options.micro_batch > 0 && options.data_ranks > 0 &&
              options.global_batch % (options.micro_batch * options.data_ranks) == 0,
          "a global batch of {} is not a multiple of a micro-batch of {} on {} data ranks",
          options.global_batch, options.micro_batch, options.data_ranks);
  require(options.data_rank >= 0 && options.data_rank < options.data_ranks, "data rank {} of {}",
          options.data_rank, options.data_ranks);
}

std::int64_t Batches::accumulation_steps() const {
  return options_.global_batch / (options_.micro_batch * options_.data_ranks);
}

std::vector<std::int64_t> Batches::rows_of(std::int64_t step) const {
  std::vector<std::int64_t> rows = sampler_.batch(step);
  if (options_.end == BatchesEnd::stop) {
    const std::int64_t left = rows_.size() - (step - 1) * options_.global_batch;
    require(left > 0, "batch {} of {} rows in batches of {}", step, rows_.size(), options_.global_batch);
    rows.resize(static_cast<std::size_t>(std::min(left, options_.global_batch)));
  }
  return rows;
}

MicroBatch Batches::micro_batch(std::span<const std::int64_t> rows, std::int64_t accumulation_step) const {
  require(accumulation_step >= 0 && accumulation_step < accumulation_steps(), "micro-batch {} of {} a step",
          accumulation_step, accumulation_steps());
  const std::int64_t index = accumulation_step * options_.data_ranks + options_.data_rank;
  const std::int64_t first = std::min(index * options_.micro_batch, std::ssize(rows));
  const std::int64_t last = std::min(first + options_.micro_batch, std::ssize(rows));
  return make_micro_batch(
      dataset_, rows_, rows.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(last - first)),
      shape_);
}

StepBatch Batches::batch(std::int64_t step) const {
  const auto rows = std::make_shared<const std::vector<std::int64_t>>(rows_of(step));
  std::int64_t counted = 0;
  for (const std::int64_t row : *rows)
    for (const std::int64_t document : rows_[row]) counted += dataset_.counted_tokens(document);
  return {.counted_tokens = counted,
          .micro_batches = accumulation_steps(),
          .micro_batch = [this, rows](std::int64_t i) { return micro_batch(*rows, i); }};
}

BatchCounts Batches::counts(std::int64_t step) const {
  BatchCounts counts;
  for (const std::int64_t row : rows_of(step)) {
    ++counts.rows;
    for (const std::int64_t document : rows_[row]) {
      const std::int64_t length = dataset_.lengths()[static_cast<std::size_t>(document)];
      ++counts.documents;
      counts.real_tokens += length;
      counts.lengths.push_back(length);
      counts.counted_tokens += dataset_.counted_tokens(document);
    }
  }
  return counts;
}

}  // namespace verne
