#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace verne {

/// Which documents make up each row of a batch, in the order in which they stand in the row.
class RowTable {
 public:
  RowTable() = default;
  /// `offsets` has one entry more than there are rows.
  RowTable(std::vector<std::int64_t> offsets, std::vector<std::int64_t> documents);

  std::int64_t size() const { return static_cast<std::int64_t>(offsets_.size()) - 1; }
  std::span<const std::int64_t> operator[](std::int64_t row) const;
  std::int64_t most_documents() const;  ///< in a row

 private:
  std::vector<std::int64_t> offsets_{0}, documents_;
};

/// Row r is document r.
RowTable one_document_a_row(std::int64_t documents);

/// The order in which documents are taken to be packed.
enum class PackingOrder { as_given, shuffled };

/// First fit: every document, taken in an order that depends on the seed alone, goes to the first row that
/// has room for it; a document of n tokens takes n of a row's `capacity` positions. A tree of the rows' room
/// finds that row: O(n log n). Every length is in [1, capacity].
RowTable pack_first_fit(std::span<const std::int32_t> lengths, std::int64_t capacity, PackingOrder order,
                        std::uint64_t seed);

}  // namespace verne
