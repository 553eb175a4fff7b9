#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "verne/data/dataset.hpp"
#include "verne/data/packing.hpp"

namespace verne {

/// How `document_starts` describes a micro-batch.
enum class DocumentTable {
  packed,  ///< every document, and every row's padding tail as a document of its own
  uniform  ///< every row is one document of the full sequence length, padding included (harmless under a
           ///< causal mask)
};

struct MicroBatchShape {
  std::int64_t rows = 0;
  std::int64_t seq_length = 0;  ///< of each row, padding included
  DocumentTable table = DocumentTable::packed;
  std::int64_t document_capacity =
      0;  ///< entries of document_starts, less one; `rows` where the table is uniform
};
/// The capacity that any `rows` rows of the table fit into.
std::int64_t document_capacity(const RowTable& table, std::int64_t rows, DocumentTable kind);

/// What one rank trains on at once: `rows` rows of `seq_length` positions, flattened to T = rows ·
/// seq_length. Documents never cross rows. Padding has token 0, target 0, mask 0.
struct MicroBatch {
  std::int64_t rows = 0, seq_length = 0;
  std::vector<std::int32_t> tokens;           ///< [T]
  std::vector<std::int32_t> targets;          ///< [T] the same document's next token; 0 after its last
  std::vector<std::uint8_t> loss_mask;        ///< [T] 1 where the target counts
  std::vector<std::int32_t> positions;        ///< [T] from 0 in every document
  std::vector<std::int32_t> document_starts;  ///< [capacity + 1] offsets into T, rising; T after the last
  std::int64_t documents = 0;                 ///< real ones, without padding
  std::int64_t real_tokens = 0;               ///< positions that are not padding
  std::int64_t counted_tokens = 0;            ///< ones in loss_mask
};

/// Rows of `table` whose documents are those of `dataset`; where there are fewer than shape.rows, the rest is
/// padding.
MicroBatch make_micro_batch(const TokenDataset& dataset, const RowTable& table,
                            std::span<const std::int64_t> rows, const MicroBatchShape& shape);

/// Padding alone, each row one document.
MicroBatch blank_micro_batch(const MicroBatchShape& shape);

}  // namespace verne
