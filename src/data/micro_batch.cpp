#include "verne/data/micro_batch.hpp"

#include <algorithm>
#include <numeric>

#include "verne/base/error.hpp"

namespace verne {
namespace {

/// Fills the flattened arrays from the left, document by document.
class RowWriter {
 public:
  RowWriter(const TokenDataset& dataset, const MicroBatchShape& shape, MicroBatch& batch)
      : dataset_(dataset), shape_(shape), batch_(batch) {}

  void row(std::int64_t row, std::span<const std::int64_t> documents) {
    const std::int64_t end = (row + 1) * shape_.seq_length;
    std::int64_t at = row * shape_.seq_length;
    if (shape_.table == DocumentTable::uniform) {
      require(documents.size() <= 1, "{} documents in a row of a uniform micro-batch", documents.size());
      start_document(at);
      number_positions(at, end);
    }
    for (const std::int64_t document : documents) {
      const std::int64_t length = dataset_.lengths()[static_cast<std::size_t>(document)];
      require(at + length <= end, "documents of more than {} tokens in a row", shape_.seq_length);
      if (shape_.table == DocumentTable::packed) {
        start_document(at);
        number_positions(at, at + length);
      }
      write(document, at, length);
      at += length;
    }
    if (shape_.table == DocumentTable::packed && at < end) {
      start_document(at);
      number_positions(at, end);
    }
  }

 private:
  void start_document(std::int64_t at) {
    require(started_ < shape_.document_capacity, "more than {} documents in a micro-batch",
            shape_.document_capacity);
    batch_.document_starts[static_cast<std::size_t>(started_++)] = static_cast<std::int32_t>(at);
  }
  void number_positions(std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      batch_.positions[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(i - begin);
    }
  }
  /// target[t] = token[t + 1], mask[t] = loss_mask[t + 1], within the document.
  void write(std::int64_t document, std::int64_t at, std::int64_t length) {
    tokens_.resize(static_cast<std::size_t>(length));
    mask_.resize(static_cast<std::size_t>(length));
    dataset_.read(document, tokens_, mask_);
    const auto first = static_cast<std::size_t>(at);
    for (std::size_t i = 0; i < tokens_.size(); ++i) {
      batch_.tokens[first + i] = static_cast<std::int32_t>(tokens_[i]);
      if (i == 0) continue;
      batch_.targets[first + i - 1] = static_cast<std::int32_t>(tokens_[i]);
      batch_.loss_mask[first + i - 1] = mask_[i];
      batch_.counted_tokens += mask_[i];
    }
    batch_.documents += 1;
    batch_.real_tokens += length;
  }

  const TokenDataset& dataset_;
  const MicroBatchShape& shape_;
  MicroBatch& batch_;
  std::int64_t started_ = 0;
  std::vector<TokenId> tokens_;
  std::vector<std::uint8_t> mask_;
};

}  // namespace

std::int64_t document_capacity(const RowTable& table, std::int64_t rows, DocumentTable kind) {
  return kind == DocumentTable::uniform ? rows : rows * (table.most_documents() + 1);
}

namespace {

MicroBatch empty_micro_batch(const MicroBatchShape& shape) {
  const std::int64_t positions = shape.rows * shape.seq_length;
  require(positions > 0 && positions < (std::int64_t{1} << 31), "a micro-batch of {} x {} positions",
          shape.rows, shape.seq_length);
  const auto count = static_cast<std::size_t>(positions);
  MicroBatch batch;
  batch.rows = shape.rows;
  batch.seq_length = shape.seq_length;
  batch.tokens.assign(count, 0);
  batch.targets.assign(count, 0);
  batch.loss_mask.assign(count, 0);
  batch.positions.assign(count, 0);
  batch.document_starts.assign(static_cast<std::size_t>(shape.document_capacity) + 1,
                               static_cast<std::int32_t>(positions));
  return batch;
}

}  // namespace

MicroBatch blank_micro_batch(const MicroBatchShape& shape) {
  MicroBatch batch = empty_micro_batch(shape);
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    batch.document_starts[static_cast<std::size_t>(row)] = static_cast<std::int32_t>(row * shape.seq_length);
    const auto first = batch.positions.begin() + row * shape.seq_length;
    std::iota(first, first + shape.seq_length, 0);
  }
  return batch;
}

MicroBatch make_micro_batch(const TokenDataset& dataset, const RowTable& table,
                            std::span<const std::int64_t> rows, const MicroBatchShape& shape) {
  require(static_cast<std::int64_t>(rows.size()) <= shape.rows, "{} rows in a micro-batch of {}", rows.size(),
          shape.rows);
  MicroBatch batch = empty_micro_batch(shape);
  RowWriter writer(dataset, shape, batch);
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    const auto index = static_cast<std::size_t>(row);
    writer.row(row, index < rows.size() ? table[rows[index]] : std::span<const std::int64_t>());
  }
  return batch;
}

}  // namespace verne
