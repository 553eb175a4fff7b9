#include "verne/data/packing.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

#include "verne/base/error.hpp"
#include "verne/data/permutation.hpp"

namespace verne {
namespace {

constexpr std::uint32_t kPackingSite = 0x7061636B;  // "pack"

/// The room left in each row: a complete binary tree whose nodes hold the largest room below them.
class RoomTree {
 public:
  RoomTree(std::int64_t rows, std::int32_t capacity) {
    while (leaves_ < static_cast<std::size_t>(rows)) leaves_ *= 2;
    room_.assign(2 * leaves_, capacity);
  }
  /// Takes `length` positions of the first row that has them.
  std::int64_t take(std::int32_t length) {
    std::size_t node = 1;
    while (node < leaves_) node = room_[2 * node] >= length ? 2 * node : 2 * node + 1;
    const std::size_t row = node - leaves_;
    room_[node] -= length;
    for (node /= 2; node > 0; node /= 2) room_[node] = std::max(room_[2 * node], room_[2 * node + 1]);
    return static_cast<std::int64_t>(row);
  }

 private:
  std::size_t leaves_ = 1;
  std::vector<std::int32_t> room_;
};

}  // namespace

RowTable::RowTable(std::vector<std::int64_t> offsets, std::vector<std::int64_t> documents)
    : offsets_(std::move(offsets)), documents_(std::move(documents)) {
  require(!offsets_.empty() && offsets_.back() == static_cast<std::int64_t>(documents_.size()),
          "a row table whose offsets end at another place than its {} documents", documents_.size());
}

std::span<const std::int64_t> RowTable::operator[](std::int64_t row) const {
  require(row >= 0 && row < size(), "row {} of {}", row, size());
  const auto first = static_cast<std::size_t>(offsets_[static_cast<std::size_t>(row)]);
  const auto last = static_cast<std::size_t>(offsets_[static_cast<std::size_t>(row) + 1]);
  return std::span(documents_).subspan(first, last - first);
}

std::int64_t RowTable::most_documents() const {
  std::int64_t most = 0;
  for (std::size_t row = 0; row + 1 < offsets_.size(); ++row)
    most = std::max(most, offsets_[row + 1] - offsets_[row]);
  return most;
}

RowTable one_document_a_row(std::int64_t documents) {
  std::vector<std::int64_t> offsets(static_cast<std::size_t>(documents) + 1),
      ids(static_cast<std::size_t>(documents));
  std::iota(offsets.begin(), offsets.end(), 0);
  std::iota(ids.begin(), ids.end(), 0);
  return {std::move(offsets), std::move(ids)};
}

RowTable pack_first_fit(std::span<const std::int32_t> lengths, std::int64_t capacity, PackingOrder order,
                        std::uint64_t seed) {
  const auto count = static_cast<std::int64_t>(lengths.size());
  const Permutation shuffle(count, seed, kPackingSite, 0);
  const auto document_at = [&](std::int64_t i) { return order == PackingOrder::shuffled ? shuffle(i) : i; };
  RoomTree tree(std::max<std::int64_t>(count, 1), static_cast<std::int32_t>(capacity));
  std::vector<std::int64_t> row_of(lengths.size());  // of the i-th document taken
  std::int64_t rows = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int32_t length = lengths[static_cast<std::size_t>(document_at(i))];
    require(length >= 1 && length <= capacity, "a document of {} tokens in rows of {}", length, capacity);
    const std::int64_t row = tree.take(length);
    row_of[static_cast<std::size_t>(i)] = row;
    rows = std::max(rows, row + 1);
  }
  // Counting sort by row keeps the order in which documents were taken.
  std::vector<std::int64_t> offsets(static_cast<std::size_t>(rows) + 1), documents(lengths.size());
  for (const std::int64_t row : row_of) ++offsets[static_cast<std::size_t>(row) + 1];
  std::partial_sum(offsets.begin(), offsets.end(), offsets.begin());
  std::vector<std::int64_t> next(offsets.begin(), offsets.end() - 1);
  for (std::int64_t i = 0; i < count; ++i) {
    const auto row = static_cast<std::size_t>(row_of[static_cast<std::size_t>(i)]);
    documents[static_cast<std::size_t>(next[row]++)] = document_at(i);
  }
  return {std::move(offsets), std::move(documents)};
}

}  // namespace verne
